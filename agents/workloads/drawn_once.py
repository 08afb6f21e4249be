"""Streams whose blocks are kept, for many runs on one stream in one process.

Drawing a catalogue's blocks is a fourteenth of a run's work, drawing a log's or the demo's more than half of it.
"""

from collections.abc import Callable, Iterator
from itertools import count, islice

import numpy as np
from numpy.typing import NDArray

from agents.workloads.blocks import BlockWorkload, RequestBlock
from agents.workloads.fleet_workload import FleetWorkload

_Draw = Callable[[int], Iterator[RequestBlock]]


class DrawnOnce:
    """The same stream, byte for byte. A part of it that comes to more than `bytes_max` is drawn again by every reader."""

    def __init__(self, source: FleetWorkload, bytes_max: int) -> None:
        self.name, self.duration_seconds, self.row_shift, self.digest = (
            source.name,
            source.duration_seconds,
            source.row_shift,
            source.digest,
        )
        self._source = source
        self._bytes_max = bytes_max
        self._kept: dict[tuple[str, int], list[RequestBlock]] = {}

    def blocks(self, block_tokens: int) -> Iterator[RequestBlock]:
        """Blocks in order of time, from the beginning."""
        return self._read("now", self._source.blocks, block_tokens)

    def past_blocks(self, block_tokens: int) -> Iterator[RequestBlock]:
        """Requests of the minute before."""
        return self._read("past", self._source.past_blocks, block_tokens)

    def recent_rows(self, count: int, gap: int = 0) -> NDArray[np.int64]:
        """What a cache holds when the stream begins."""
        return self._source.recent_rows(count, gap)

    def _read(self, part: str, draw: _Draw, block_tokens: int) -> Iterator[RequestBlock]:
        """What was kept; else what is drawn now, kept once a reader came to its end."""
        if (part, block_tokens) in self._kept:
            yield from self._kept[part, block_tokens]
            return
        drawn: list[RequestBlock] = []
        room = self._bytes_max
        for block in draw(block_tokens):
            room -= sum(values.nbytes for values in block)
            if room >= 0:
                drawn.append(block)
            else:
                drawn.clear()
            yield block
        if room >= 0:
            self._kept[part, block_tokens] = drawn


class DrawnSoFar:
    """Any stream, also one without an end: what some reader has come to is kept, up to `bytes_max`; the rest is drawn by each."""

    def __init__(self, source: BlockWorkload, bytes_max: int) -> None:
        self.name, self.duration_seconds, self.row_shift = source.name, source.duration_seconds, source.row_shift
        self._source = source
        self._room = bytes_max
        self._drawn: dict[int, tuple[list[RequestBlock], Iterator[RequestBlock]]] = {}

    def blocks(self, block_tokens: int) -> Iterator[RequestBlock]:
        """Blocks in order of time, from the beginning."""
        if block_tokens not in self._drawn:
            self._drawn[block_tokens] = [], self._source.blocks(block_tokens)
        kept, coming = self._drawn[block_tokens]
        for place in count():
            if place == len(kept):
                block = next(coming, None) if self._room > 0 else None
                if block is None:  # the end of the stream, or of what may be kept
                    yield from islice(self._source.blocks(block_tokens), place, None)
                    return
                self._room -= sum(values.nbytes for values in block)
                kept.append(block)
            yield kept[place]
