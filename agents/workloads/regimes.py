"""Regimes: how the traffic's parameters move through a stream, as piecewise-linear keyframes.

A stream's life is a list of keyframes, each a full set of traffic parameters at a second. Between two
keyframes every parameter moves linearly, so "within seconds" and "over minutes" are the same mechanism.
The schedule samples the keyframes once on a fine grid; everything after that is an array look-up, and
arrival times come from inverting cumulative intensities (an exact non-homogeneous Poisson process).
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

GRID_SECONDS = 0.05  # finer than the fastest ramp (seconds); 600 s of traffic are 12,000 grid points


class Traffic(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Parameters of the traffic at one moment. Shares are of the requests or of the drawn rows, 0..1."""

    rate_factor: float = 1.0  # times the stream's base rate; 0 is silence
    hot_request_ratio: float = 0.1  # share of requests sent by hot users
    hot_users: float = 60.0  # users in the hot set, equally active
    cold_request_ratio: float = 0.0  # share of requests by users never seen before or after
    history_tokens_low: float = 352.0  # window of the shortest histories; a history is 3/4 to 1 of its window
    history_tokens_high: float = 480.0  # window of the longest histories
    events_per_request: float = 6.0  # mean events a user adds to the log after each request
    hot_rows: float = 120_000.0  # rows in the hot item set, equally popular
    hot_row_ratio: float = 0.8  # share of drawn rows that are hot
    hot_rows_drift_per_second: float = 0.0  # rows that leave the hot set, and as many that join, per second
    hot_users_drift_per_second: float = 0.0  # users that leave the hot set, and as many that join, per second

    def __post_init__(self) -> None:
        """Refuse parameters no stream can have, naming the field."""
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if not math.isfinite(value) or value < 0:
                raise ValueError(f"{name} must be a finite number >= 0")
        for name in ("hot_request_ratio", "cold_request_ratio", "hot_row_ratio"):
            if getattr(self, name) > 1:
                raise ValueError(f"{name} must be at most 1")
        if self.hot_request_ratio + self.cold_request_ratio > 1:
            raise ValueError("hot_request_ratio and cold_request_ratio must not exceed 1 together")
        if self.history_tokens_low < 4 or self.history_tokens_high < self.history_tokens_low:
            raise ValueError("history_tokens_low must be >= 4 and at most history_tokens_high")
        if self.hot_users < 1 or self.hot_rows < 1:
            raise ValueError("hot_users and hot_rows must be >= 1")


class Keyframe(NamedTuple):
    """The traffic at one second of the cycle; between two of them every parameter moves linearly."""

    at_seconds: float
    traffic: Traffic


class Moment(NamedTuple):
    """The traffic at one instant, with the drift integrated: what a request draw needs."""

    rate_factor: float
    hot_users: int
    history_tokens_low: float
    history_tokens_high: float
    events_per_request: float
    hot_rows: int
    hot_row_ratio: float
    row_offset: int  # first hot row in the order of rows
    user_offset: int  # first hot user in the order of users


_FIELDS = Traffic.__struct_fields__


class Schedule:
    """A cycle of keyframes, repeated for ever; seconds beyond the cycle wrap, drift goes on."""

    def __init__(self, keyframes: Sequence[Keyframe]) -> None:
        times = [frame.at_seconds for frame in keyframes]
        if len(times) < 2 or times[0] != 0.0 or any(b <= a for a, b in pairwise(times)):
            raise ValueError("keyframes must begin at 0 and rise strictly; at least two are needed")
        self.cycle_seconds = times[-1]
        points = max(2, math.ceil(self.cycle_seconds / GRID_SECONDS) + 1)
        self._grid = np.linspace(0.0, self.cycle_seconds, points)
        self._step = self.cycle_seconds / (points - 1)
        self._values = {
            name: np.interp(self._grid, times, [float(getattr(frame.traffic, name)) for frame in keyframes]) for name in _FIELDS
        }
        rate, hot, cold = (self._values[name] for name in ("rate_factor", "hot_request_ratio", "cold_request_ratio"))
        self.hot = Intensity(self._grid, rate * hot)
        self.cold = Intensity(self._grid, rate * cold)
        self.regular = Intensity(self._grid, rate * (1.0 - hot - cold))
        self.all = Intensity(self._grid, rate)
        self._row_drift = Intensity(self._grid, self._values["hot_rows_drift_per_second"])
        self._user_drift = Intensity(self._grid, self._values["hot_users_drift_per_second"])

    def at(self, seconds: float) -> Moment:
        """Traffic at `seconds` of the stream (negative: warm-up, the cycle's beginning)."""
        index = round(max(0.0, seconds) % self.cycle_seconds / self._step)
        values = self._values
        return Moment(
            rate_factor=float(values["rate_factor"][index]),
            hot_users=max(1, int(values["hot_users"][index])),
            history_tokens_low=float(values["history_tokens_low"][index]),
            history_tokens_high=float(values["history_tokens_high"][index]),
            events_per_request=float(values["events_per_request"][index]),
            hot_rows=max(1, int(values["hot_rows"][index])),
            hot_row_ratio=float(values["hot_row_ratio"][index]),
            row_offset=int(self._row_drift.total(seconds)),
            user_offset=int(self._user_drift.total(seconds)),
        )

    def tabulated(self) -> "Tabulated":
        """The whole cycle at once, for generators that keep it in arrays."""
        values = dict(self._values)
        values["row_offset"] = self._row_drift.totals
        values["user_offset"] = self._user_drift.totals
        return Tabulated(self._grid, values, {"hot": self.hot.totals, "cold": self.cold.totals, "regular": self.regular.totals})


class Tabulated(NamedTuple):
    """A cycle on the schedule's grid of G points."""

    seconds: NDArray[np.float64]  # [G]
    values: dict[str, NDArray[np.float64]]  # each [G]: the fields of `Traffic`, and the drifts integrated
    totals: dict[str, NDArray[np.float64]]  # each [G]: integrated intensities of hot, cold and regular requests at a base rate of 1


class Intensity:
    """A periodic non-negative function of time, its integral and the inverse of the integral."""

    def __init__(self, grid: NDArray[np.float64], values: NDArray[np.float64]) -> None:
        steps = np.diff(grid) * (values[1:] + values[:-1]) / 2.0
        self._grid = grid
        self.totals = np.concatenate(([0.0], np.cumsum(steps)))  # integral from 0 to each grid point
        self.first = float(values[0])  # value at the cycle's beginning; holds before it
        self.per_cycle = float(self.totals[-1])
        self.cycle_seconds = float(grid[-1])

    def total(self, seconds: float) -> float:
        """Integral from 0 to `seconds`; before 0 the first value holds (result is negative)."""
        if seconds < 0:
            return self.first * seconds
        cycles, rest = divmod(seconds, self.cycle_seconds)
        return cycles * self.per_cycle + float(np.interp(rest, self._grid, self.totals))

    def when(self, total: float) -> float:
        """Seconds at which the integral reaches `total`; infinity if it never does."""
        if total < 0:
            return total / self.first if self.first > 0 else 0.0
        if self.per_cycle <= 0.0:
            return math.inf
        cycles, rest = divmod(total, self.per_cycle)
        return cycles * self.cycle_seconds + float(np.interp(rest, self.totals, self._grid))
