"""The card of a policy: everything that must be known beside the weights before anyone lets it decide.

The digest covers card and weights together, so neither can be swapped under the other.
"""

import hashlib
import math
from typing import Any, Literal

import msgspec

FORMAT_VERSION = 1
HIDDEN_LAYERS_MAX = 3
UNITS_MAX = 256  # a decision must stay far below a millisecond, and an artefact under a megabyte


class Action(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the outputs mean.

    `step`: one output o; the proposal is anchor + step_ratio_max * tanh(o). The anchor is the present ratio, or the
    best split of the value curves. `increments`: one score per increment; the largest is added to the present ratio.
    A step's proposals are smoothed, each pulling the smoothed one by `follow_share` of the way; what is then nearer
    to the present ratio than `hold_ratio` means hold. Unset is not written: digests of older cards stay what they were.
    """

    kind: Literal["step", "increments"]
    period_seconds: float
    step_ratio_max: float = 0.0
    anchor: Literal["present", "landscape"] = "present"
    increments: list[float] = []
    hold_ratio: float | msgspec.UnsetType = msgspec.UNSET
    follow_share: float | msgspec.UnsetType = msgspec.UNSET

    @property
    def followed(self) -> float:
        """`follow_share`, 1 where the card has none: the proposal as it is."""
        return 1.0 if isinstance(self.follow_share, msgspec.UnsetType) else self.follow_share

    @property
    def held_within(self) -> float:
        """`hold_ratio`, 0 where the card has none."""
        return 0.0 if isinstance(self.hold_ratio, msgspec.UnsetType) else self.hold_ratio


class Card(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One policy in words and numbers. `mean` and `scale` are the frozen statistics of the features."""

    format_version: int
    name: str
    features: list[str]
    mean: list[float]
    scale: list[float]
    hidden: list[int]
    action: Action
    seed: int
    git_revision: str
    training: dict[str, Any] = {}
    evaluation: dict[str, Any] = {}
    digest: str = ""

    def __post_init__(self) -> None:
        """Refuse a card that contradicts itself, naming the field."""
        inputs = len(self.features)
        _require(0 < len(self.name) <= 64, "name: must have 1 to 64 characters")
        _require(0 < inputs <= UNITS_MAX and len(set(self.features)) == inputs, "features: must be distinct and at least one")
        _require(len(self.mean) == inputs and all(map(math.isfinite, self.mean)), "mean: must be one finite number per feature")
        _require(
            len(self.scale) == inputs and all(math.isfinite(each) and each > 0.0 for each in self.scale),
            "scale: must be one finite number above zero per feature",
        )
        _require(
            1 <= len(self.hidden) <= HIDDEN_LAYERS_MAX and all(1 <= units <= UNITS_MAX for units in self.hidden),
            f"hidden: must be 1 to {HIDDEN_LAYERS_MAX} layers of 1 to {UNITS_MAX} units",
        )
        _require_action(self.action)

    @property
    def outputs(self) -> int:
        """Outputs of the network."""
        return 1 if self.action.kind == "step" else len(self.action.increments)


def _require_action(action: Action) -> None:
    period, step, increments = action.period_seconds, action.step_ratio_max, action.increments
    _require(math.isfinite(period) and 0.1 <= period <= 60.0, "action.period_seconds: must be 0.1 to 60")
    if action.kind == "step":
        _require(math.isfinite(step) and 0.0 < step <= 0.5, "action.step_ratio_max: must lie in (0, 0.5]")
        _require(not increments, "action.increments: belong to the kind `increments`")
    _require(math.isfinite(action.held_within) and 0.0 <= action.held_within <= 0.2, "action.hold_ratio: must be 0 to 0.2")
    _require(0.0 < action.followed <= 1.0, "action.follow_share: must lie in (0, 1]")
    if action.kind == "increments":
        _require(action.followed == 1.0, "action.follow_share: belongs to the kind `step`")
        _require(2 <= len(increments) <= UNITS_MAX, f"action.increments: must be 2 to {UNITS_MAX}")
        _require(all(math.isfinite(each) and abs(each) <= 0.5 for each in increments), "action.increments: must be finite, at most 0.5")


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(what)


def encode_card(card: Card) -> bytes:
    """Canonical JSON: equal cards give equal bytes."""
    return msgspec.json.encode(card, order="sorted")


def digest_of(card: Card, weights: bytes) -> str:
    """SHA-256 over the weights and the card without its digest, in hexadecimal."""
    bare = encode_card(msgspec.structs.replace(card, digest=""))
    return hashlib.sha256(hashlib.sha256(weights).digest() + bare).hexdigest()
