"""Whether a scenario can be served at all, told from its first requests before any work starts."""

from collections.abc import Sequence

import numpy as np

from agents.numerics.cost import Cost, prefill_ms
from agents.profiles import Profile
from agents.workloads.blocks import BlockWorkload, RequestBlock


def require_possible(profiles: Sequence[Profile], workload: BlockWorkload, rate_per_second: float | None) -> None:
    """`ValueError` names the field that no split and no router could make up for; an unknown rate is not judged."""
    block = next(workload.blocks(profiles[0].block_tokens), None)
    if block is None or block.at_ns.size == 0:
        return  # a stream without requests is served by anybody
    for profile in profiles:
        _require_room(profile, int(block.history_tokens.max()))
    if rate_per_second is not None:
        _require_capacity(profiles, block, rate_per_second)


def _require_room(profile: Profile, tokens: int) -> None:
    held = profile.pages * profile.block_tokens
    if held < tokens:
        raise ValueError(f"profile: {profile.name}'s pool_bytes hold {held} tokens of KV, fewer than one user's {tokens}")


def _require_capacity(profiles: Sequence[Profile], block: RequestBlock, rate_per_second: float) -> None:
    served = sum(1e3 / least_ms(profile, block) for profile in profiles)
    if rate_per_second > served:
        raise ValueError(
            f"rate_per_second: {rate_per_second:g} is utilisation {rate_per_second / served:.2f} even if every lookup hit; "
            f"these nodes can serve at most {served:.0f}"
        )


def least_ms(profile: Profile, block: RequestBlock) -> float:
    """Mean service of the block's requests if every prefix and every row were there, and a full batch shared its rows."""
    cost = Cost.of(profile.cost)
    whole = block.history_tokens // profile.block_tokens * profile.block_tokens
    prefill = [prefill_ms(cost, float(tokens), float(cached)) for tokens, cached in zip(block.history_tokens, whole, strict=True)]
    candidates = float(block.candidates.mean())
    rows_ms = cost.ms_per_hit_row * candidates / profile.batch_max
    return max(cost.ms_fixed + cost.ms_per_candidate * candidates + rows_ms + float(np.mean(prefill)), 1e-9)
