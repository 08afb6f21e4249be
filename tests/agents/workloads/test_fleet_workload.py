"""Streams in blocks: exact sampling, one seed one stream, and the laws that the regimes promise."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from agents.workloads.block_stream import CLASSES
from agents.workloads.blocks import RequestBlock, stream_digest
from agents.workloads.catalogues import CATALOGUES, REGIMES, fleet_workload
from agents.workloads.fleet_workload import VERSION, FleetWorkload

FROZEN = Path(__file__).with_name("frozen_streams.json")
BLOCK_TOKENS = 168


def workload(regime: str = "steady", catalogue: str = "taobao", **other: float) -> FleetWorkload:
    given = {"nodes": 1, "rate_per_second": 40.0, "seed": 7, "duration_seconds": 12.0, **other}
    return fleet_workload(catalogue, regime, **given)  # type: ignore[arg-type]


@cache
def whole(regime: str = "steady", duration_seconds: float = 60.0, rate: float = 50.0) -> RequestBlock:
    return joined(workload(regime, duration_seconds=duration_seconds, rate_per_second=rate))


def joined(stream: FleetWorkload) -> RequestBlock:
    blocks = list(stream.blocks(BLOCK_TOKENS))
    parts = {name: np.concatenate([getattr(block, name) for block in blocks]) for name in RequestBlock._fields if "offsets" not in name}
    for name in ("block_offsets", "history_offsets", "candidate_offsets"):
        parts[name] = np.concatenate(([0], np.cumsum(np.concatenate([np.diff(getattr(block, name)) for block in blocks]))))
    return RequestBlock(**parts)


def share_of_users(block: RequestBlock, begin: float, end: float) -> float:
    """Share of a span's requests whose user came before in the same span."""
    inside = (block.at_ns >= begin * 1e9) & (block.at_ns < end * 1e9)
    return 1.0 - np.unique(block.user_keys[inside]).size / max(1, int(inside.sum()))


@pytest.mark.parametrize("catalogue", CATALOGUES)
@pytest.mark.parametrize("regime", REGIMES)
def test_a_frozen_stream_keeps_its_bytes(catalogue: str, regime: str) -> None:
    """Policies were trained on these bytes: whoever changes them raises VERSION, records anew and retrains."""
    recorded = json.loads(FROZEN.read_text("utf-8"))
    assert recorded["version"] == VERSION
    assert stream_digest(workload(regime, catalogue).blocks(BLOCK_TOKENS)) == recorded["digests"][f"{catalogue}/{regime}"]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not() -> None:
    first, again, other = (stream_digest(workload(seed=seed).blocks(BLOCK_TOKENS)) for seed in (7, 7, 8))
    assert first == again != other


def test_the_arguments_and_the_version_enter_the_digest_of_a_scenario() -> None:
    assert workload().digest == workload().digest
    assert len({workload().digest, workload(seed=8).digest, workload("burst").digest, workload(nodes=2).digest}) == 4


@pytest.mark.parametrize("row_shift", [3, 8])
def test_a_sampled_stream_is_exactly_a_part_of_the_full_one(row_shift: int) -> None:
    full = joined(workload(duration_seconds=1.0, row_shift=0))
    thin = joined(workload(duration_seconds=1.0, row_shift=row_shift))
    for name in ("at_ns", "user_keys", "history_tokens", "candidates", "block_hashes"):
        assert np.array_equal(getattr(full, name), getattr(thin, name)), name
    for rows, offsets in (("history_rows", "history_offsets"), ("candidate_rows", "candidate_offsets")):
        for request in range(full.at_ns.size):
            all_rows = getattr(full, rows)[getattr(full, offsets)[request] : getattr(full, offsets)[request + 1]]
            kept = getattr(thin, rows)[getattr(thin, offsets)[request] : getattr(thin, offsets)[request + 1]]
            assert np.array_equal(all_rows[all_rows % 2**row_shift == 0] >> row_shift, kept)


def test_a_full_request_has_a_row_per_token_and_distinct_candidates() -> None:
    full = joined(workload(duration_seconds=1.0, row_shift=0))
    assert np.array_equal(np.diff(full.history_offsets), full.history_tokens)
    for request in range(full.at_ns.size):
        rows = full.candidate_rows[full.candidate_offsets[request] : full.candidate_offsets[request + 1]]
        assert rows.size == np.unique(rows).size == 8_000 == full.candidates[request]
    assert max(full.candidate_rows.max(), full.history_rows.max()) < CATALOGUES["taobao"].stream.rows


def test_every_regime_keeps_time_order_histories_and_rate() -> None:
    for regime in REGIMES:
        block = whole(regime)
        assert (np.diff(block.at_ns) >= 0).all()
        assert block.at_ns[0] >= 0
        assert block.at_ns[-1] < 60e9
        assert (block.user_keys != 0).all()
        assert block.history_tokens.min() >= 5_900
        assert block.history_tokens.max() <= 16_384
        assert np.array_equal(np.diff(block.block_offsets), block.history_tokens // BLOCK_TOKENS)
    assert whole("steady").at_ns.size == pytest.approx(3_000, rel=0.06)


def test_a_user_who_comes_again_brings_the_same_prefix_and_some_new_events() -> None:
    block = whole()
    keys, counts = np.unique(block.user_keys, return_counts=True)
    first, second = np.flatnonzero(block.user_keys == keys[np.argmax(counts)])[:2]
    assert block.history_tokens[second] >= block.history_tokens[first]
    shared = block.history_tokens[first] // BLOCK_TOKENS
    before, after = (block.block_hashes[block.block_offsets[place] :][:shared] for place in (first, second))
    assert np.array_equal(before, after)
    kept = block.history_rows[block.history_offsets[first] : block.history_offsets[first + 1]]
    assert np.array_equal(kept, block.history_rows[block.history_offsets[second] :][: kept.size])


def test_the_trend_lengthens_histories_from_eight_to_fifteen_thousand() -> None:
    block = joined(workload("trend", duration_seconds=300.0, rate_per_second=130.0))
    early, late = block.at_ns < 30e9, block.at_ns > 270e9
    assert block.history_tokens[early].mean() == pytest.approx(8_000, rel=0.05)
    assert block.history_tokens[late].mean() > 12_000
    assert np.quantile(block.history_tokens[late], 0.9) > 14_500


def test_a_burst_raises_arrivals_and_returning_users_within_seconds() -> None:
    block = whole("burst", 120.0, 130.0)
    calm, burst = (np.count_nonzero((block.at_ns >= a * 1e9) & (block.at_ns < b * 1e9)) / (b - a) for a, b in ((10, 28), (32, 44)))
    assert burst / calm == pytest.approx(1.6, rel=0.12)
    counts = [
        np.unique(block.user_keys[(block.at_ns >= a * 1e9) & (block.at_ns < b * 1e9)], return_counts=True)[1]
        for a, b in ((16, 28), (32, 44))
    ]
    returning = [int((part >= 3).sum()) for part in counts]
    assert returning[1] > 1.6 * returning[0]


def test_a_cold_flood_brings_users_who_never_came_before() -> None:
    block = whole("cold-flood", 120.0, 130.0)
    assert share_of_users(block, 50, 80) < 0.5 < share_of_users(block, 5, 35)


def test_sessions_go_for_good() -> None:
    block = whole("sessions", 120.0, 50.0)
    order = np.lexsort((block.at_ns, block.user_keys))
    same = np.diff(block.user_keys[order].astype(np.float64)) == 0
    gaps = np.diff(block.at_ns[order])[same] / 1e9
    assert gaps.size > 0.6 * block.at_ns.size
    assert (gaps < 38.0).mean() > 0.98


def test_zero_traffic_is_silent_in_the_middle() -> None:
    block = whole("zero-traffic")
    assert not ((block.at_ns > 18.2e9) & (block.at_ns < 42e9)).any()
    assert (block.at_ns > 43e9).any()


def test_a_version_flip_makes_every_prefix_another_one() -> None:
    flipped, steady = whole("version-flip"), whole("steady")
    assert np.array_equal(flipped.at_ns, steady.at_ns)
    before, after = (int(flipped.block_offsets[np.searchsorted(flipped.at_ns, at)]) for at in (29.9e9, 30.1e9))
    assert np.array_equal(flipped.block_hashes[:before], steady.block_hashes[:before])
    assert not np.isin(flipped.block_hashes[after:], steady.block_hashes).any()


def test_smooth_users_follow_their_rank_without_classes() -> None:
    counts = np.sort(np.unique(whole("smooth", 120.0, 130.0).user_keys, return_counts=True)[1])[::-1]
    assert counts[0] > 5 * counts[50] > 5 * 5 * np.median(counts)


def test_hot_rows_take_their_share() -> None:
    steady = CATALOGUES["taobao"].steady
    hot = whole().candidate_rows < steady.hot_rows / CLASSES
    assert hot.mean() == pytest.approx(steady.hot_row_ratio, abs=0.01)


def test_the_past_is_a_minute_of_the_same_users_with_candidates_of_its_own() -> None:
    stream = workload()
    past, now = list(stream.past_blocks(128)), list(stream.blocks(128))
    assert all(block.at_ns[0] >= 0 and block.at_ns[-1] < 60e9 for block in past)
    per_second = sum(block.at_ns.size for block in now) / stream.duration_seconds
    assert sum(block.at_ns.size for block in past) / 60.0 == pytest.approx(per_second, rel=0.2)
    assert np.isin(past[-1].user_keys, np.concatenate([block.user_keys for block in now])).mean() > 0.5
    assert past[0].candidate_rows[:100].tolist() != now[0].candidate_rows[:100].tolist()


def test_behind_a_doorkeeper_recent_rows_are_those_asked_for_twice_in_time() -> None:
    stream = workload()
    once, twice = (set(stream.recent_rows(50_000, gap).tolist()) for gap in (0, 100_000))
    hot = CATALOGUES["taobao"].steady.hot_rows / CLASSES
    assert np.mean([row < hot for row in twice]) > np.mean([row < hot for row in once])


def test_recent_rows_are_distinct_and_begin_with_the_hot_ones() -> None:
    stream = workload()
    rows = stream.recent_rows(100_000)
    assert rows.size == 100_000 == np.unique(rows).size
    assert (rows < CATALOGUES["taobao"].steady.hot_rows / CLASSES).mean() > 0.85
    assert rows.max() < stream.rows
    assert stream.recent_rows(0).size == 0


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"nodes": 0}, "nodes"),
        ({"rate_per_second": 0.0}, "rate_per_second"),
        ({"rate_per_second": float("nan")}, "rate_per_second"),
        ({"duration_seconds": -1.0}, "duration_seconds"),
        ({"row_shift": 9}, "row_shift"),
        ({"seed": -1}, "seed"),
        ({"catalogue": "ebay"}, "workload"),
        ({"regime": "calm"}, "regime"),
    ],
)
def test_an_impossible_stream_is_refused_by_the_name_of_its_field(given: dict[str, float], field: str) -> None:
    with pytest.raises(ValueError, match=f"^{field}: "):
        workload(**given)  # type: ignore[arg-type]
