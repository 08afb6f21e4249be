"""Bytes of a policy at the edge: decoded, checked whole, or refused by name."""

import base64
import binascii
from typing import NamedTuple

from agents.artifacts.card import Card
from agents.artifacts.policy_file import BYTES_MAX, ArtefactError, PolicyFile, Refusal, read_policy
from agents.controller.features import FEATURE_SETS
from agents.controller.frozen import freeze
from apps.lib.problems import FieldError, Unprocessable, invalid

WEIGHTS_TEXT_MAX = 4 * (BYTES_MAX // 3 + 1)
VARIANTS = ("helm", "paper")  # in the order of the sets of features
_OF_THE_CARD = {Refusal.CARD_INVALID, Refusal.TOO_NEW, Refusal.FEATURES_UNKNOWN}


class Checked(NamedTuple):
    """An artefact that a node would take."""

    file: PolicyFile
    card: Card
    variant: str


def decode(weights_base64: str) -> bytes:
    """Weights as they came over JSON."""
    try:
        return base64.b64decode(weights_base64, validate=True)
    except (binascii.Error, ValueError):
        raise invalid("weights", "not_base64", "Send the safetensors file in base64.") from None


def encode(weights: bytes) -> str:
    """Weights as they go over JSON."""
    return base64.b64encode(weights).decode()


def checked(weights: bytes, card: bytes) -> Checked:
    """Everything a node would check before it decides by them; refused as a 422 naming what is wrong."""
    try:
        return checked_file(weights, card)
    except ArtefactError as error:
        field = "card" if error.code in _OF_THE_CARD else "weights"
        raise Unprocessable(
            error.code.value, f"{field}: {error.detail}", [FieldError(f"/{field}", error.code.value, error.detail)]
        ) from None


def checked_file(weights: bytes, card: bytes) -> Checked:
    """The same for whoever is not asked over HTTP; raises `ArtefactError`."""
    policy = read_policy(weights, card)
    freeze(policy)
    if not policy.card.name.isprintable():  # it stands in the audit log and on pages
        raise ArtefactError(Refusal.CARD_INVALID, "name: must be printable")
    variant = VARIANTS[FEATURE_SETS.index(tuple(policy.card.features))]
    return Checked(PolicyFile(weights, card, policy.card.digest), policy.card, variant)
