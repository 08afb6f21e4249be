"""A log as blocks: the same histories whatever is sampled, and what the rules promise."""

from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import pytest

from agents.profiles import load_profile
from agents.workloads.block_adapter import row_numbers
from agents.workloads.blocks import RequestBlock, stream_digest
from agents.workloads.replay import Pace, ReplayRules, TraceWorkload
from agents.workloads.trace_blocks import TraceBlocks, open_blocks
from agents.workloads.trace_file import RequestTable

RULES = ReplayRules(rows=4096, candidates=64, tokens_max=48, actions=4, history_tokens_min=24, near_events=200)
BLOCK_TOKENS = 4


def table(requests: int = 300, users: int = 7, items: int = 150) -> RequestTable:
    """Each request brings two events."""
    chance = np.random.default_rng(5)
    return RequestTable(
        ts_ns=np.arange(requests, dtype=np.int64) * 1_000_000_000,
        users=chance.integers(1, users + 1, requests).astype(np.uint64),
        items=chance.permutation(np.arange(2 * requests) % items),
        offsets=np.arange(requests + 1, dtype=np.int64) * 2,
    )


def trace(row_shift: int = 0, rows_per_item: int = 1, pace: Pace | None = None, **rules: object) -> TraceBlocks:
    changed = msgspec.structs.replace(RULES, **rules)  # type: ignore[arg-type]
    workload = TraceWorkload("log", table(), changed, pace or Pace(speed=1.0), 1)
    return TraceBlocks(table(), workload, changed, seed=1, row_shift=row_shift, rows_per_item=rows_per_item)


def whole(stream: TraceBlocks) -> RequestBlock:
    (block,) = stream.blocks(BLOCK_TOKENS)
    return block


def rows_of(block: RequestBlock, request: int, part: str) -> np.ndarray:
    offsets = getattr(block, f"{part}_offsets")
    return np.asarray(getattr(block, f"{part}_rows")[offsets[request] : offsets[request + 1]])


def test_a_request_carries_a_row_per_token_and_distinct_candidates() -> None:
    block = whole(trace())
    assert np.array_equal(np.diff(block.history_offsets), block.history_tokens)
    assert 18 <= block.history_tokens.min() <= block.history_tokens.max() <= 48
    for request in range(300):
        rows = rows_of(block, request, "candidate")
        assert rows.size == np.unique(rows).size == 64


def test_what_the_user_takes_next_is_among_the_candidates_and_then_ends_the_history() -> None:
    block, log = whole(trace()), table()
    for request in range(300):
        taken = log.items[2 * request : 2 * request + 2]
        assert np.isin(taken, rows_of(block, request, "candidate")).all()
        later = np.flatnonzero(block.user_keys[request + 1 :] == block.user_keys[request])
        if later.size:
            assert rows_of(block, request + 1 + int(later[0]), "history")[-2:].tolist() == taken.tolist()


def test_a_sampled_history_is_the_followed_part_of_the_full_one() -> None:
    numbers = row_numbers(150, 2)
    full, thin = whole(trace()), whole(trace(row_shift=2))
    for request in range(300):
        followed = numbers[rows_of(full, request, "history")]
        assert followed[followed >= 0].tolist() == rows_of(thin, request, "history").tolist()
    assert np.array_equal(full.block_hashes, thin.block_hashes)


def test_candidates_are_thinned_by_as_much() -> None:
    full, thin = whole(trace(rows_per_item=4)), whole(trace(row_shift=2, rows_per_item=4))
    assert thin.candidate_rows.size / full.candidate_rows.size == pytest.approx(1 / 4, rel=0.05)
    assert (full.candidates == 64).all()


def test_an_item_brings_all_of_its_rows() -> None:
    block = whole(trace(rows_per_item=4, explore_ratio=0.0))
    rows = rows_of(block, 0, "candidate")
    near = rows[rows < 600]
    assert np.array_equal(np.sort(near), np.concatenate([4 * item + np.arange(4) for item in np.unique(near // 4)]))
    assert (block.history_rows % 4 == 0).all()


def test_appends_keep_the_prefix_until_the_window_slides() -> None:
    block = whole(trace())
    user = np.flatnonzero(block.user_keys == block.user_keys[0])
    kept = 0
    for before, after in pairwise(user):
        first, second = (block.block_hashes[block.block_offsets[place] : block.block_offsets[place + 1]] for place in (before, after))
        if block.history_tokens[after] == block.history_tokens[before] + 2:
            assert np.array_equal(second[: first.size], first)
            kept += 1
    assert kept > 0.7 * user.size


def test_one_seed_gives_one_stream_and_each_node_its_own_users() -> None:
    stream = trace(pace=Pace(speed=1.0, rate_per_second=5.0))
    assert stream_digest(stream.blocks(BLOCK_TOKENS)) == stream_digest(stream.blocks(BLOCK_TOKENS))
    parts = [list(stream.blocks(BLOCK_TOKENS, node, 3)) for node in range(3)]
    keys = [set(np.concatenate([block.user_keys for block in part]).tolist()) for part in parts]
    assert sum(block.at_ns.size for part in parts for block in part) == stream.requests == 1500
    assert not keys[0] & keys[1] and not keys[1] & keys[2]


def test_clones_play_the_same_log_from_other_places() -> None:
    block = whole(trace(pace=Pace(speed=1.0, rate_per_second=3.0)))
    assert np.unique(block.user_keys).size == 21
    assert (np.diff(block.at_ns) >= 0).all()


def test_by_the_own_rule_histories_hold_only_what_the_user_takes() -> None:
    block, log = whole(trace(history="own")), table()
    for request in range(300):
        own = log.items[np.repeat(log.users == log.users[request], 2)]
        assert np.isin(rows_of(block, request, "history"), own).all()


def test_by_the_short_rule_histories_begin_with_one_event() -> None:
    block = whole(trace(history="short"))
    mine = np.flatnonzero(block.user_keys == block.user_keys[0])[:5]
    assert block.history_tokens[mine].tolist() == [1, 3, 5, 7, 9]


@pytest.mark.parametrize(
    ("given", "field"),
    [({"rows_per_item": 40}, "rows_per_item"), ({"rows_per_item": 0}, "rows_per_item"), ({"row_shift": 17}, "row_shift")],
)
def test_what_does_not_fit_is_refused_by_name(given: dict[str, int], field: str) -> None:
    with pytest.raises(ValueError, match=f"^{field}: "):
        trace(**given)  # type: ignore[arg-type]


def test_a_file_is_opened_at_its_own_pace_or_compressed_to_a_fleets(tmp_path: Path) -> None:
    profile = load_profile("cpu-tiny")
    for per_second, words in ((100.0, "speed 1:"), (0.01, "too thin for a fleet")):
        path = tmp_path / f"log{per_second}.npz"
        place = np.arange(400)
        np.savez(path, user=place % 90, item=place * 7 % 60, ts=((1.7e9 + place / per_second) * 1000).astype(np.int64))
        stream, notes = open_blocks(path, profile, ReplayRules.for_profile(profile), seed=1)
        assert any(words in note for note in notes)
        assert stream.requests / stream.duration_seconds == pytest.approx(100.0 if per_second == 100.0 else 200.0, rel=0.15)
        assert sum(block.at_ns.size for block in stream.blocks(profile.block_tokens)) == stream.requests
