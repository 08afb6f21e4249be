"""Which rows and which users are popular: drawing laws, each a pure function of a generator's stream."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from agents.workloads.regimes import Moment


class RowLaw(Protocol):
    """A popularity of table rows."""

    rows: int

    def draw(self, chance: np.random.Generator, count: int, moment: Moment) -> NDArray[np.int64]:
        """`count` independent rows at `moment`; repeats occur."""
        ...


class TwoLevelRows:
    """A hot set of equally popular rows and a flat tail: one sharp knee in the hit curve.

    Physics: smooth Zipf popularity makes the latency curve flat in the split; a knee (the hot set just
    fits, or does not) makes an interior optimum. Drift slides the hot set along a seeded order of rows.
    """

    def __init__(self, rows: int, order_chance: np.random.Generator) -> None:
        self.rows = rows
        self._order = order_chance.permutation(rows)

    def draw(self, chance: np.random.Generator, count: int, moment: Moment) -> NDArray[np.int64]:
        """A binomial number of hot rows, the rest from the tail, in random order."""
        hot_rows = min(moment.hot_rows, self.rows - 1)
        hot_count = int(chance.binomial(count, moment.hot_row_ratio))
        places = np.empty(count, dtype=np.int64)
        places[:hot_count] = chance.integers(0, hot_rows, hot_count)
        places[hot_count:] = chance.integers(hot_rows, self.rows, count - hot_count)
        chance.shuffle(places)
        result: NDArray[np.int64] = self._order[(places + moment.row_offset) % self.rows]
        return result


class PowerLaw:
    """Zipf-Mandelbrot weights `(rank + shift) ** -exponent` over a seeded order of ids."""

    def __init__(self, ids: int, exponent: float, shift: float, order_chance: np.random.Generator) -> None:
        weights = (np.arange(1, ids + 1, dtype=np.float64) + shift) ** -exponent
        self.rows = ids
        self._cumulative = np.cumsum(weights) / weights.sum()
        self._order = order_chance.permutation(ids)

    def draw(self, chance: np.random.Generator, count: int, moment: Moment) -> NDArray[np.int64]:
        """Independent draws; only the drift of `moment` matters."""
        ranks = np.minimum(np.searchsorted(self._cumulative, chance.random(count)), self.rows - 1)
        result: NDArray[np.int64] = self._order[(ranks + moment.row_offset) % self.rows]
        return result


def draw_distinct(law: RowLaw, chance: np.random.Generator, count: int, moment: Moment) -> NDArray[np.int64]:
    """`count` distinct rows in random order: a ranking request never lists a candidate twice."""
    rows = law.draw(chance, count, moment)
    while True:
        _, first = np.unique(rows, return_index=True)
        if first.shape[0] == count:
            return rows
        kept = rows[np.sort(first)]
        rows = np.concatenate((kept, law.draw(chance, count - kept.shape[0], moment)))
