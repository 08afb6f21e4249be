"""What a ratio costs before it is asked for: bytes, rows, users, refill, time, and the node's own prediction.

Pure: a profile, two ratios and the node's landscape in, numbers out.
"""

from itertools import pairwise
from typing import Any

from agents.profiles.profile import Profile

GIB = 2**30


def split_at(profile: Profile, emb_ratio: float) -> dict[str, Any]:
    """What a share of the pool holds. Users are counted at the model's full history, the dearest case."""
    emb_pages = round(profile.pages * emb_ratio)
    emb_bytes = emb_pages * profile.page_bytes
    kv_bytes = profile.pool_bytes - emb_bytes
    return {
        "emb_ratio": emb_ratio,
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


def change(profile: Profile, before_ratio: float, after_ratio: float) -> dict[str, Any]:
    """What lies between two splits. Only the growing side has to be refilled, and only EMB is refilled from the host."""
    before, after = split_at(profile, before_ratio), split_at(profile, after_ratio)
    return {
        "moved_bytes": abs(after["emb_bytes"] - before["emb_bytes"]),
        "emb_rows": after["emb_rows"] - before["emb_rows"],
        "kv_users": after["kv_users"] - before["kv_users"],
        "refill_gib": max(0, after["emb_bytes"] - before["emb_bytes"]) / GIB,
        "move_seconds": abs(after_ratio - before_ratio) / profile.move_ratio_per_second,
    }


def preview(
    profile: Profile, before_ratio: float, after_ratio: float, landscape: list[list[float]], slo_ms: float | None
) -> dict[str, Any]:
    """The whole price tag."""
    now, then = predicted(landscape, before_ratio), predicted(landscape, after_ratio)
    warnings = []
    if now and then and then["latency_ms_mean"] > now["latency_ms_mean"]:
        warnings.append("slower_than_now")
    if then and slo_ms and then["latency_ms_p99"] > slo_ms:
        warnings.append("over_slo")
    return {
        "before": {**split_at(profile, before_ratio), "predicted": now},
        "after": {**split_at(profile, after_ratio), "predicted": then},
        "change": change(profile, before_ratio, after_ratio),
        "warnings": warnings,
    }
