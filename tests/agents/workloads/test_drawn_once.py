"""Streams that many runs read, drawn for the first."""

from collections.abc import Iterator

import pytest

from agents.workloads.blocks import RequestBlock, stream_digest
from agents.workloads.catalogues import fleet_workload
from agents.workloads.drawn_once import DrawnOnce
from agents.workloads.fleet_workload import FleetWorkload

ENOUGH_BYTES = 1 << 30


def source() -> FleetWorkload:
    return fleet_workload("taobao", "steady", nodes=1, rate_per_second=100.0, seed=3, duration_seconds=20.0, row_shift=8)


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
