"""What a wish costs before it is asked for: bytes, rows, users, refill, time, and the node's own prediction.

Pure: a profile, two splits and the node's landscape in, numbers out.
"""

from itertools import pairwise
from typing import Any, NamedTuple

from agents.profiles.profile import Profile

GIB = 2**30


class Split(NamedTuple):
    """A pool and EMB's share of it."""

    pool_bytes: int
    emb_ratio: float


def holdings(profile: Profile, split: Split) -> dict[str, Any]:
    """What both caches hold. Users are counted at the model's full history, the dearest case."""
    pages = split.pool_bytes // profile.page_bytes
    emb_bytes = round(pages * split.emb_ratio) * profile.page_bytes
    kv_bytes = pages * profile.page_bytes - emb_bytes
    return {
        "pool_bytes": emb_bytes + kv_bytes,
        "emb_ratio": split.emb_ratio,
        "emb_bytes": emb_bytes,
        "kv_bytes": kv_bytes,
        "emb_rows": min(emb_bytes // profile.row_bytes, profile.rows),
        "kv_users": kv_bytes // (profile.kv_token_bytes * profile.model.tokens_max),
    }


def predicted(landscape: list[list[float]], emb_ratio: float) -> dict[str, float] | None:
    """The node's landscape (rows of ratio, mean, p99, low, high in ms) read at a ratio; null outside of it."""
    rows = sorted(landscape)
    for left, right in pairwise(rows):
        if left[0] <= emb_ratio <= right[0]:
            share = 0.0 if right[0] == left[0] else (emb_ratio - left[0]) / (right[0] - left[0])
            mean, p99, low, high = (a + share * (b - a) for a, b in zip(left[1:5], right[1:5], strict=True))
            return {"latency_ms_mean": mean, "latency_ms_p99": p99, "latency_ms_low": low, "latency_ms_high": high}
    return None


def change(profile: Profile, before: Split, after: Split) -> dict[str, Any]:
    """What lies between two splits. Only the growing side has to be refilled, and only EMB is refilled from the host."""
    old, new = holdings(profile, before), holdings(profile, after)
    owners = ("pool_bytes", "emb_bytes", "kv_bytes")
    resized = before.pool_bytes != after.pool_bytes
    return {
        "moved_bytes": sum(abs(new[name] - old[name]) for name in owners) // 2,  # each byte leaves one owner and joins another
        "emb_rows": new["emb_rows"] - old["emb_rows"],
        "kv_users": new["kv_users"] - old["kv_users"],
        "refill_gib": max(0, new["emb_bytes"] - old["emb_bytes"]) / GIB,
        "move_seconds": None if resized else abs(after.emb_ratio - before.emb_ratio) / profile.move_ratio_per_second,
    }


def preview(profile: Profile, before: Split, after: Split, landscape: list[list[float]], slo_ms: float | None) -> dict[str, Any]:
    """The whole price tag. The landscape is of the present pool, so that nothing is predicted for another size of it."""
    now = predicted(landscape, before.emb_ratio)
    then = predicted(landscape, after.emb_ratio) if after.pool_bytes == before.pool_bytes else None
    warnings = []
    if now and then and then["latency_ms_mean"] > now["latency_ms_mean"]:
        warnings.append("slower_than_now")
    if then and slo_ms and then["latency_ms_p99"] > slo_ms:
        warnings.append("over_slo")
    return {
        "before": {**holdings(profile, before), "predicted": now},
        "after": {**holdings(profile, after), "predicted": then},
        "change": change(profile, before, after),
        "warnings": warnings,
    }
