"""Streams that many runs read, drawn for the first."""

from collections.abc import Iterator
from itertools import islice

import pytest

from agents.workloads.blocks import RequestBlock, stream_digest
from agents.workloads.catalogues import fleet_workload
from agents.workloads.drawn_once import DrawnOnce, DrawnSoFar
from agents.workloads.fleet_workload import FleetWorkload

ENOUGH_BYTES = 1 << 30


def source(seconds: float = 20.0) -> FleetWorkload:
    return fleet_workload("taobao", "steady", nodes=1, rate_per_second=100.0, seed=3, duration_seconds=seconds, row_shift=8)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Prefix lengths of every drawing from the generator."""
    draw, drawings = FleetWorkload.blocks, []

    def counted(self: FleetWorkload, block_tokens: int) -> Iterator[RequestBlock]:
        drawings.append(block_tokens)
        return draw(self, block_tokens)

    monkeypatch.setattr(FleetWorkload, "blocks", counted)
    return drawings


def test_a_second_reader_gets_the_same_bytes_without_a_second_drawing(drawn: list[int]) -> None:
    stream = DrawnOnce(source(), ENOUGH_BYTES)
    first, second = (stream_digest(stream.blocks(128)) for _ in range(2))
    assert drawn == [128]
    assert first == second == stream_digest(source().blocks(128))
    assert stream_digest(stream.past_blocks(128)) == stream_digest(stream.past_blocks(128)) == stream_digest(source().past_blocks(128))
    assert stream.recent_rows(50).tolist() == source().recent_rows(50).tolist()
    assert stream.digest == source().digest


def test_other_prefix_lengths_are_another_drawing(drawn: list[int]) -> None:
    stream = DrawnOnce(source(), ENOUGH_BYTES)
    for block_tokens in (128, 64, 128):
        assert stream_digest(stream.blocks(block_tokens)) == stream_digest(source().blocks(block_tokens))
    assert drawn == [128, 128, 64, 64, 128]


def test_a_reader_who_leaves_early_keeps_nothing_from_the_next_one(drawn: list[int]) -> None:
    stream = DrawnOnce(source(), ENOUGH_BYTES)
    next(stream.blocks(128))
    assert stream_digest(stream.blocks(128)) == stream_digest(source().blocks(128))
    assert drawn == [128, 128, 128]


def test_a_stream_too_long_to_be_kept_is_drawn_by_every_reader(drawn: list[int]) -> None:
    stream = DrawnOnce(source(), bytes_max=1000)
    assert stream_digest(stream.blocks(128)) == stream_digest(stream.blocks(128))
    assert drawn == [128, 128]


def test_of_a_stream_without_an_end_what_somebody_came_to_is_kept_and_drawn_on_from_there(drawn: list[int]) -> None:
    stream, whole = DrawnSoFar(source(200.0), ENOUGH_BYTES), list(source(200.0).blocks(128))
    assert len(whole) > 2
    drawn.clear()
    first = list(islice(stream.blocks(128), 1))
    both = [stream.blocks(128), stream.blocks(128)]
    turns = [next(reader) for _ in range(2) for reader in both]
    assert stream_digest(first) == stream_digest(whole[:1])
    assert stream_digest(turns[::2]) == stream_digest(turns[1::2]) == stream_digest(whole[:2])
    assert stream_digest(stream.blocks(128)) == stream_digest(whole)
    assert drawn == [128, 128], "once for all, and once to learn that nothing comes after the end"


def test_of_a_stream_without_an_end_what_is_too_much_to_keep_is_drawn_by_every_reader() -> None:
    stream = DrawnSoFar(source(), bytes_max=1)
    assert stream_digest(stream.blocks(128)) == stream_digest(stream.blocks(128)) == stream_digest(source().blocks(128))


def test_of_a_stream_without_an_end_other_prefix_lengths_begin_anew() -> None:
    stream = DrawnSoFar(source(), ENOUGH_BYTES)
    for block_tokens in (128, 64, 128):
        assert stream_digest(stream.blocks(block_tokens)) == stream_digest(source().blocks(block_tokens))
