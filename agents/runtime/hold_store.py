"""The node's desired state on disk, so that a restart neither forgets nor prolongs an override.

While the node runs, its own monotonic deadline decides. The wall clock is used only after a
restart, and can only shorten: what remains is never more than what remained when it was saved.
"""

import json
from pathlib import Path

import msgspec

from agents.node.desired import TTL_MS_MIN, Desired
from agents.runtime.files import write_private
from agents.wire.messages import ControllerMode, GuardRails, Mode, NodeSpec


class SavedHold(msgspec.Struct, frozen=True, kw_only=True):
    """Content of `spec.json`. The deadline stands there with an override only."""

    generation: int
    mode: Mode
    controller: ControllerMode
    emb_ratio: float | None
    reason: str
    guard_rails: GuardRails
    deadline_unix_ns: int | None
    remaining_ms: int | None
    pool_bytes: int | None = None
    policy_digest: str = ""
    policy_generation: int = 0
    controller_in_force: ControllerMode = ControllerMode.ACTIVE  # milder than `controller` while its policy does not decide yet
    demoted_policy: str | None = None  # in whose place the shadow decides; empty: the node's own


def saved(
    desired: Desired, now_ns: int, unix_ns: int, in_force: ControllerMode | None = None, demoted_policy: str | None = None
) -> SavedHold:
    """What to write for the state in force now; `in_force` where the mode is not yet the one that is wanted."""
    remaining_ns = None if desired.deadline_ns is None else max(0, desired.deadline_ns - now_ns)
    return SavedHold(
        generation=desired.generation,
        mode=desired.mode,
        controller=desired.controller,
        emb_ratio=desired.emb_ratio,
        reason=desired.reason,
        guard_rails=desired.guard_rails,
        deadline_unix_ns=None if remaining_ns is None else unix_ns + remaining_ns,
        remaining_ms=None if remaining_ns is None else remaining_ns // 1_000_000,
        pool_bytes=desired.pool_bytes,
        policy_digest=desired.policy_digest,
        policy_generation=desired.policy_generation,
        controller_in_force=in_force or desired.controller,
        demoted_policy=demoted_policy,
    )


def restored(hold: SavedHold, unix_ns: int) -> NodeSpec:
    """The command that brings a saved state back; an override that has run out comes back as automatic."""
    spec = NodeSpec(
        generation=hold.generation,
        controller=hold.controller,
        guard_rails=hold.guard_rails,
        pool_bytes=hold.pool_bytes,
        policy_digest=hold.policy_digest,
        policy_generation=hold.policy_generation,
    )
    if hold.mode is Mode.PIN:
        return msgspec.structs.replace(spec, mode=Mode.PIN, emb_ratio=hold.emb_ratio, reason=hold.reason)
    if hold.mode is not Mode.OVERRIDE or hold.deadline_unix_ns is None or hold.remaining_ms is None:
        return spec
    remaining_ms = min((hold.deadline_unix_ns - unix_ns) // 1_000_000, hold.remaining_ms)
    if remaining_ms < TTL_MS_MIN:
        return spec
    return msgspec.structs.replace(spec, mode=Mode.OVERRIDE, emb_ratio=hold.emb_ratio, reason=hold.reason, ttl_remaining_ms=remaining_ms)


def write_hold(path: Path, hold: SavedHold) -> None:
    """Replace the file atomically."""
    write_private(path, json.dumps(msgspec.to_builtins(hold), indent=1).encode())


def read_hold(path: Path) -> SavedHold | None:
    """The saved state, or `None` when there is none; `ValueError` when the file is damaged."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=SavedHold)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise ValueError(f"{path.name}: {error}") from error
