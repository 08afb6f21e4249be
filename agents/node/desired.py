"""What the node was told to do: automatic, a ratio for a while, or a ratio until released.

Expiry is decided here, by the node's own monotonic time, so that a lost control plane cannot
leave an override standing.
"""

import math
from typing import NamedTuple

from agents.profiles import Profile
from agents.wire.errors import ErrorCode, WireError
from agents.wire.messages import ControllerMode, ControlRequest, GuardRails, Mode, NodeSpec

TTL_MS_MIN = 1_000
TTL_MS_MAX = 12 * 3_600 * 1_000
REASON_CHARACTERS_MAX = 200
_MILDNESS = (ControllerMode.ACTIVE, ControllerMode.ADVISORY, ControllerMode.OFF)
ROUNDING = 1e-9  # a floor of a tenth is a page of ten, though 1 - 0.9 is a little less


class Desired(NamedTuple):
    """The desired state in force. `deadline_ns` is set with an override only."""

    generation: int
    mode: Mode
    controller: ControllerMode
    emb_ratio: float | None
    deadline_ns: int | None
    reason: str
    guard_rails: GuardRails
    pool_bytes: int | None = None  # None: all that the profile has
    policy_digest: str = ""  # whose decisions `controller` is about; empty: the node's own controller
    policy_generation: int = 0

    def expired(self, now_ns: int) -> bool:
        """Whether an override has run out."""
        return self.deadline_ns is not None and now_ns >= self.deadline_ns

    def released(self) -> "Desired":
        """The same state without override or pin."""
        return self._replace(mode=Mode.AUTO, emb_ratio=None, deadline_ns=None, reason="")


def milder(one: ControllerMode, other: ControllerMode) -> ControllerMode:
    """Of two modes the one that lets a controller do less."""
    return max(one, other, key=_MILDNESS.index)


def initial(guard_rails: GuardRails) -> Desired:
    """Automatic, generation zero."""
    return Desired(0, Mode.AUTO, ControllerMode.ACTIVE, None, None, "", guard_rails)


def from_spec(present: Desired, now_ns: int, spec: NodeSpec) -> Desired:
    """Desired state after a command of the control plane; raises `WireError` and changes nothing if refused."""
    if spec.generation < present.generation:
        raise WireError(ErrorCode.STALE_GENERATION, f"generation {spec.generation} is older than {present.generation}", "generation")
    deadline_ns = _check_hold(now_ns, spec.mode, spec.emb_ratio, spec.ttl_remaining_ms, spec.reason, spec.guard_rails)
    held = spec.mode is not Mode.AUTO
    return Desired(
        spec.generation,
        spec.mode,
        spec.controller,
        spec.emb_ratio if held else None,
        deadline_ns,
        spec.reason,
        spec.guard_rails,
        spec.pool_bytes,
        spec.policy_digest,
        spec.policy_generation,
    )


def from_control(present: Desired, now_ns: int, request: ControlRequest) -> Desired:
    """Desired state after a local command; raises `WireError` and changes nothing if refused."""
    deadline_ns = _check_hold(now_ns, request.mode, request.emb_ratio, request.ttl_ms, request.reason, present.guard_rails)
    if request.pool_bytes is not None:
        present = present._replace(pool_bytes=request.pool_bytes)
    if request.mode is Mode.AUTO:
        return present.released()
    return present._replace(mode=request.mode, emb_ratio=request.emb_ratio, deadline_ns=deadline_ns, reason=request.reason)


class PoolLimits(NamedTuple):
    """Sizes that a pool may be given, both included."""

    bytes_min: int
    bytes_max: int


def pool_limits(rails: GuardRails, profile: Profile) -> PoolLimits:
    """From a pool in which a cache at its guard rail still has a page, to all that the profile's arena has."""
    pages_min = math.ceil(1.0 / min(rails.emb_ratio_min, 1.0 - rails.emb_ratio_max) - ROUNDING)
    return PoolLimits(pages_min * profile.page_bytes, profile.pool_bytes)


def pool_pages(wanted: Desired, profile: Profile) -> int:
    """Whole pages of the pool that is wanted; `WireError` for one outside its limits."""
    if wanted.pool_bytes is None:
        return profile.pages
    low, high = pool_limits(wanted.guard_rails, profile)
    if not low <= wanted.pool_bytes <= high:
        raise WireError(ErrorCode.INVALID_REQUEST, f"pool_bytes {wanted.pool_bytes} must be {low} to {high}", "pool_bytes")
    return wanted.pool_bytes // profile.page_bytes


def _check_hold(now_ns: int, mode: Mode, emb_ratio: float | None, ttl_ms: int | None, reason: str, rails: GuardRails) -> int | None:
    """Validate a hold and return its deadline (override) or `None` (pin, automatic)."""
    if mode is Mode.AUTO:
        return None
    if mode not in (Mode.OVERRIDE, Mode.PIN):
        raise WireError(ErrorCode.INVALID_REQUEST, f"mode {mode} can be reported but not asked for", "mode")
    if emb_ratio is None or not math.isfinite(emb_ratio):
        raise WireError(ErrorCode.INVALID_REQUEST, "emb_ratio must be a finite number", "emb_ratio")
    if not rails.emb_ratio_min <= emb_ratio <= rails.emb_ratio_max:
        detail = f"emb_ratio {emb_ratio} is outside the guard rails {rails.emb_ratio_min} to {rails.emb_ratio_max}"
        raise WireError(ErrorCode.OUTSIDE_GUARD_RAILS, detail, "emb_ratio")
    if not reason.strip() or len(reason) > REASON_CHARACTERS_MAX:
        raise WireError(ErrorCode.INVALID_REQUEST, f"reason must have 1 to {REASON_CHARACTERS_MAX} characters", "reason")
    if mode is Mode.PIN:
        if ttl_ms is not None:
            raise WireError(ErrorCode.INVALID_REQUEST, "a pin stands until released and takes no TTL", "ttl_ms")
        return None
    if ttl_ms is None or not TTL_MS_MIN <= ttl_ms <= TTL_MS_MAX:
        raise WireError(ErrorCode.INVALID_REQUEST, f"ttl_ms must be {TTL_MS_MIN} to {TTL_MS_MAX}", "ttl_ms")
    return now_ns + ttl_ms * 1_000_000
