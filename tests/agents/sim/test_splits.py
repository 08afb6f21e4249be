"""Static splits replayed exactly: known hits on tiny pools, known prices."""

import msgspec
import numpy as np
import pytest

from agents.profiles import Profile, load_profile
from agents.sim.splits import NodeStream, node_stream, replay_splits
from agents.workloads.blocks import RequestBlock
from agents.workloads.catalogues import fleet_workload

DEMO = load_profile("cpu-demo")  # 256 rows or 64 tokens a page


def pool_of(pages: int) -> Profile:
    return msgspec.structs.replace(DEMO, pool_bytes=pages * DEMO.page_bytes)


def requests(users: list[int], rows: list[list[int]], prefix: list[int] | None = None) -> NodeStream:
    """Requests of 64 tokens a second apart: no history rows, the given candidates, one block each with the given hash."""
    count = len(users)
    lengths = np.cumsum([0, *map(len, rows)])
    block = RequestBlock(
        at_ns=np.arange(count) * 1_000_000_000,
        user_keys=np.array(users, np.uint64),
        history_tokens=np.full(count, 64),
        candidates=np.array([len(part) for part in rows]),
        block_hashes=np.array(prefix or users, np.uint64),
        block_offsets=np.arange(count + 1),
        history_rows=np.empty(0, np.int64),
        history_offsets=np.zeros(count + 1, np.int64),
        candidate_rows=np.array([row for part in rows for row in part], np.int64),
        candidate_offsets=lengths,
    )
    return node_stream([block], 0)


def cached(stream: NodeStream, pages: int, window_ns: int = 0) -> list[bool]:
    cost = replay_splits(stream, pool_of(pages), ratios=np.array([0.0]), window_ns=window_ns)
    return (cost.cached_ratio[0] > 0).tolist()


def test_the_least_recent_user_makes_room() -> None:
    stream = requests([1, 2, 1, 3, 1, 2], [[]] * 6)
    assert cached(stream, pages=2) == [False, False, True, False, True, False]
    assert cached(stream, pages=3) == [False, False, True, False, True, True]


def test_a_changed_prefix_is_no_hit_and_replaces_the_old_one() -> None:
    assert cached(requests([1, 1, 1], [[]] * 3, prefix=[7, 8, 8]), pages=4) == [False, False, True]


def test_behind_a_door_a_user_enters_with_the_second_request_soon_enough() -> None:
    stream = requests([1, 1, 1, 2, 3, 4, 2, 2], [[]] * 8)
    assert cached(stream, pages=8, window_ns=2_000_000_000) == [False, False, True, False, False, False, False, False]


def test_missing_rows_are_counted_and_priced() -> None:
    stream = requests([1, 2, 3], [[5, 6], [5, 6], [6, 7]])
    cost = replay_splits(stream, pool_of(1), ratios=np.array([1.0]))
    assert cost.missing_ratio[0].tolist() == [1.0, 0.0, 0.5]
    row_ms = DEMO.cost.ms_per_missing_row - DEMO.cost.ms_per_hit_row
    assert cost.service_ms[0, 0] - cost.service_ms[0, 1] == pytest.approx(2 * row_ms)


def test_a_node_that_starts_warm_misses_less() -> None:
    stream = requests([1, 2], [[5, 6], [7]])
    warm = replay_splits(stream, pool_of(1), ratios=np.array([1.0]), recent_rows=np.array([6, 5]))
    assert warm.missing_ratio[0].tolist() == [0.0, 1.0]


def test_users_fall_to_exactly_one_node() -> None:
    workload = fleet_workload("taobao", "steady", nodes=2, rate_per_second=40.0, seed=1, duration_seconds=5.0)
    parts = [node_stream(workload.blocks(168), 8, node, 2) for node in range(2)]
    whole = node_stream(workload.blocks(168), 8)
    assert sum(part.at_ns.size for part in parts) == whole.at_ns.size
    assert sum(part.user_count for part in parts) == whole.user_count
    assert min(part.at_ns.size for part in parts) > 0.3 * whole.at_ns.size


def test_a_node_without_requests_is_refused() -> None:
    with pytest.raises(ValueError, match="none for this node"):
        node_stream([], 8)


@pytest.mark.verify
@pytest.mark.parametrize(("regime", "quiet", "busy"), [("trend", (0, 30), (270, 300)), ("burst", (45, 75), (80, 110))])
def test_the_best_split_moves_with_the_traffic(regime: str, quiet: tuple[int, int], busy: tuple[int, int]) -> None:
    """By at least 0.25 inside trend and between calm and burst, and never at an end of the grid."""
    profile = load_profile("a100-80g")
    workload = fleet_workload("taobao", regime, nodes=1, rate_per_second=130.0, seed=1)
    stream = node_stream(workload.blocks(profile.block_tokens), workload.row_shift)
    cost = replay_splits(stream, profile, ratios=np.linspace(0.1, 0.9, 9), recent_rows=workload.recent_rows(profile.pages * 16))
    spans = [(stream.at_ns >= begin * 1e9) & (stream.at_ns < end * 1e9) for begin, end in (quiet, busy)]
    best = [cost.ratios[cost.service_ms[:, span].sum(axis=1).argmin()] for span in spans]
    assert best[0] - best[1] >= 0.25
    assert 0.1 < best[1] < best[0] < 0.9
