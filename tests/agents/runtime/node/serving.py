"""A tiny node behind a real socket, and what its clients send and read."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from agents.runtime.config import bind
from agents.runtime.gateway import Gateway
from agents.runtime.keys import UserKeys
from agents.runtime.listener import Listener
from agents.runtime.node_metrics import NodeMetrics
from agents.wire.errors import ErrorCode, WireError
from agents.wire.messages import ModelChoice
from tests.agents.runtime.node.parts import Parts

KEY = {"Authorization": "Bearer secret"}
INFER = "/v2/models/helm-ranker/infer"
SALT = b"salt"


class Served(Parts):
    """A tiny node behind a real socket."""

    client: aiohttp.ClientSession
    port: int
    listener: Listener


async def no_versions(choice: ModelChoice) -> None:
    raise WireError(ErrorCode.INVALID_REQUEST, f"version {choice.version!r} is not here", "version")


@asynccontextmanager
async def served(body_seconds_max: float = 5.0, idle_seconds_max: float = 30.0) -> AsyncIterator[Served]:
    async with Served() as parts:
        metrics = NodeMetrics(parts.engine, parts.node.ledger)
        keys = UserKeys(SALT, "life-1")
        gateway = Gateway(parts.engine, metrics, keys, "secret", "life-1", parts.engine.control, no_versions, body_seconds_max)
        listener = parts.listener = Listener(gateway.application(), idle_seconds_max)
        bound = bind("127.0.0.1", 0)
        parts.port = bound.getsockname()[1]
        await listener.open(bound)
        try:
            async with aiohttp.ClientSession(f"http://127.0.0.1:{parts.port}") as client:
                parts.client = client
                yield parts
        finally:
            parts.device.release()
            await listener.close()


def tensor(name: str, values: list[int]) -> dict[str, Any]:
    return {"name": name, "shape": [1, len(values)], "datatype": "INT64", "data": values}


def infer_body(user: str | int | None = "u1", tokens: int = 8, scored: int = 4, **top: Any) -> dict[str, Any]:
    parameters: dict[str, Any] = {} if user is None else {"parameters": {"user_id": user}}
    inputs = [
        tensor("history_items", list(range(tokens))),
        tensor("history_actions", [0] * tokens),
        tensor("history_ts", list(range(tokens))),
        tensor("candidates", list(range(500, 500 + scored))),
    ]
    return {"inputs": inputs, **parameters, **top}


async def answer(response: aiohttp.ClientResponse) -> Any:
    assert response.content_type == "application/json"
    return json.loads(await response.read())
