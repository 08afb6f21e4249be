"""Reference eviction policies for embedding rows, to hold the product's against. Never used by the product.

Each is told a row id and answers whether it was resident; a missing row is offered to the cache. Written from the
published descriptions: LRU; CLOCK with one reference bit; S3-FIFO (Yang et al., SOSP 2023: a small first-in-first-out
queue of a tenth, a main queue with reinsertion, a ghost queue as long as the main one, counts up to 3); LRU behind
TinyLFU (Einziger, Friedman, Manes, ToS 2017: a count-min sketch of 4 rows, counts to 15, halved after ten
references per cached row; the newcomer must be counted more often than the victim).
"""

from collections import OrderedDict, deque
from typing import Protocol

import numpy as np


class RowPolicy(Protocol):
    """A cache of row ids."""

    def use(self, row: int) -> bool:
        """Whether the row is resident; it counts as used either way."""
        ...


class Lru:
    """Least recently used goes first, everybody gets in."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._rows: OrderedDict[int, None] = OrderedDict()

    def use(self, row: int) -> bool:
        """One reference."""
        if row in self._rows:
            self._rows.move_to_end(row)
            return True
        if self._admits(row):
            if len(self._rows) == self._capacity:
                self._rows.popitem(last=False)
            self._rows[row] = None
        return False

    def _admits(self, row: int) -> bool:
        return True


class TinyLfuLru(Lru):
    """LRU that lets a row in only if it was used more often than the row it would displace."""

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self._width = 1 << max(4, (4 * capacity - 1).bit_length())
        self._counts = np.zeros((4, self._width), np.uint8).tolist()
        self._references = 0

    def use(self, row: int) -> bool:
        """Count, then as LRU."""
        for count, place in zip(self._counts, self._places(row), strict=True):
            count[place] = min(15, count[place] + 1)
        self._references += 1
        if self._references == 10 * self._capacity:
            self._counts = [[value >> 1 for value in count] for count in self._counts]
            self._references = 0
        return super().use(row)

    def _places(self, row: int) -> list[int]:
        mixed = (row + 1) * 0x9E3779B97F4A7C15 & (1 << 64) - 1
        return [(mixed * odd >> 40) % self._width for odd in (1, 0x5851F42D, 0x14057B7E, 0x2545F491)]

    def _estimate(self, row: int) -> int:
        return int(min(count[place] for count, place in zip(self._counts, self._places(row), strict=True)))

    def _admits(self, row: int) -> bool:
        if len(self._rows) < self._capacity:
            return True
        return self._estimate(row) > self._estimate(next(iter(self._rows)))


class Clock:
    """A hand over the rows; a reference bit earns one more round."""

    def __init__(self, capacity: int, uses_max: int = 1) -> None:
        self._capacity = capacity
        self._uses_max = uses_max
        self._uses: dict[int, int] = {}
        self._ring: deque[int] = deque()

    def use(self, row: int) -> bool:
        """One reference."""
        if row in self._uses:
            self._uses[row] = min(self._uses_max, self._uses[row] + 1)
            return True
        while len(self._ring) >= self._capacity:
            oldest = self._ring.popleft()
            if self._uses[oldest] > 0:
                self._uses[oldest] -= 1
                self._ring.append(oldest)
            else:
                del self._uses[oldest]
        self._ring.append(row)
        self._uses[row] = 0
        return False


class S3Fifo:
    """Newcomers pass a small queue; who was used there twice, or comes back soon after it, gets into the main one."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._small_max = max(1, capacity // 10)
        self._small: deque[int] = deque()
        self._main: deque[int] = deque()
        self._ghosts: OrderedDict[int, None] = OrderedDict()
        self._uses: dict[int, int] = {}

    def use(self, row: int) -> bool:
        """One reference."""
        if row in self._uses:
            self._uses[row] = min(3, self._uses[row] + 1)
            return True
        while len(self._uses) >= self._capacity:
            self._evict()
        if row in self._ghosts:
            del self._ghosts[row]
            self._main.append(row)
        else:
            self._small.append(row)
        self._uses[row] = 0
        return False

    def _evict(self) -> None:
        if len(self._small) >= self._small_max or not self._main:
            self._leave_small()
        else:
            self._leave_main()

    def _leave_small(self) -> None:
        row = self._small.popleft()
        if self._uses[row] > 1:
            self._main.append(row)
            self._uses[row] = 0
            return
        del self._uses[row]
        self._ghosts[row] = None
        if len(self._ghosts) > self._capacity - self._small_max:
            self._ghosts.popitem(last=False)

    def _leave_main(self) -> None:
        row = self._main.popleft()
        if self._uses[row] > 0:
            self._uses[row] -= 1
            self._main.append(row)
        else:
            del self._uses[row]


REFERENCES: dict[str, type[Lru] | type[Clock] | type[S3Fifo]] = {"lru": Lru, "clock": Clock, "s3-fifo": S3Fifo, "tinylfu-lru": TinyLfuLru}
