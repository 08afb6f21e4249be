"""What a router is told about the prefixes a node holds: a snapshot, or the changes since a sequence number."""

from agents.pool.state import Counter, PoolState
from agents.wire.messages import ResidencyDelta, ResidencySnapshot


def residency_since(state: PoolState, block_tokens: int, seq: int) -> ResidencySnapshot | ResidencyDelta | None:
    """Changes after `seq`; a snapshot when they are no longer all kept or `seq` is from another life; `None` if none."""
    newest = int(state.counters[Counter.RESIDENCY_SEQ])
    if seq == newest:
        return None
    kept = state.residency.shape[0]
    if seq < 0 or seq > newest or newest - seq > kept:
        return snapshot(state, block_tokens)
    latest: dict[int, int] = {}
    for number in range(seq + 1, newest + 1):
        change = state.residency[number % kept]
        latest[int(change["key"])] = int(change["tokens"])
    return ResidencyDelta(seq_first=seq + 1, seq=newest, user_keys=list(latest), cached_tokens=list(latest.values()))


def snapshot(state: PoolState, block_tokens: int) -> ResidencySnapshot:
    """Every prefix held now."""
    live = state.lists["entry"][: state.counters[Counter.ENTRIES_LIVE]]
    held = state.entries[live]
    return ResidencySnapshot(
        seq=int(state.counters[Counter.RESIDENCY_SEQ]),
        user_keys=held["key"].tolist(),
        cached_tokens=(held["blocks"].astype("int64") * block_tokens).tolist(),
    )
