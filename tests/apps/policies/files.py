"""Artefacts as clients send them."""

import base64
import json
from typing import Any

from agents.artifacts.policy_file import PolicyFile
from tests.agents.controller.policies import card, random_file


def tiny_file(seed: int = 0, **changes: Any) -> PolicyFile:
    return random_file(card(**changes), seed)


def body_of(file: PolicyFile, **changes: Any) -> dict[str, Any]:
    return {"card": file.card.decode(), "weights": base64.b64encode(file.weights).decode(), **changes}


def with_card(file: PolicyFile, **changes: Any) -> dict[str, Any]:
    return body_of(file, card=json.dumps({**json.loads(file.card), **changes}))
