"""Synthetic request streams: who comes when, with which history, and which candidates.

Three kinds of users make one stream. *Hot* users form a set that returns all the time. *Regular* users
come for visits: several requests with short gaps, then nothing until they revisit. *Cold* users come
once and never again. Every user has an append-only log of events; a request carries its newest part,
so two requests of one user share a real prefix. The same seed gives the same requests, byte for byte.
"""

import heapq
import math
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from agents.numerics.prefix import window_start
from agents.workloads.popularity import PowerLaw, RowLaw, draw_distinct
from agents.workloads.regimes import Moment, Schedule
from agents.workloads.request import Request

NS_PER_SECOND = 1_000_000_000


class Purpose(IntEnum):
    """Chance is split into named streams, so that a change in one law leaves the draws of the others alone."""

    ARRIVALS = 0
    ROW_ORDER = 1
    USER_ORDER = 2
    CANDIDATES = 3
    LOGS = 4


class VisitLaw(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Gaps of a user's requests in log seconds; LN parameters are in ln seconds.

    Defaults are KuaiRand-27K's (full log, 31 days, 27,285 users): gaps inside a visit LN(4.26, 1.49), a visit
    ends at a gap of 30 minutes, revisit LN(9.69, 1.26). `compression` says how many log seconds pass in one
    second of the stream. The revisit law's scale is not taken from the log but follows from the user count
    and the visit rate, so that a stream is stationary; only its shape (sigma) is KuaiRand's.
    """

    compression: float = 48.0  # half an hour of the log, the gap that ends a visit, is 37.5 s of the stream
    gap_mu: float = 4.26
    gap_sigma: float = 1.49
    gap_max_seconds: float = 1800.0
    revisit_sigma: float = 1.26
    requests_mean: float = 6.0  # requests a visit, geometric; KuaiRand has 14, the paper's author ran 3-6

    def __post_init__(self) -> None:
        """Refuse a law that cannot be drawn from."""
        if not (self.compression > 0 and self.gap_sigma > 0 and self.revisit_sigma > 0 and self.gap_max_seconds > 0):
            raise ValueError("compression, gap_sigma, revisit_sigma and gap_max_seconds must be positive")
        if self.requests_mean < 1:
            raise ValueError("requests_mean must be >= 1")

    def gap(self, chance: np.random.Generator) -> float:
        """Stream seconds to the visit's next request."""
        return min(self.gap_max_seconds, chance.lognormal(self.gap_mu, self.gap_sigma)) / self.compression


class Population(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sizes that stay fixed for the whole stream."""

    users: int
    rows: int
    candidates: int
    tokens_max: int
    actions: int

    def __post_init__(self) -> None:
        """Refuse sizes from which no request can be made, naming the field."""
        for name in self.__struct_fields__:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1")
        if self.rows < 2 * self.candidates:
            raise ValueError("rows must be at least twice candidates")


class Arrival(NamedTuple):
    """One request's time and sender."""

    at_seconds: float
    user: int


class MixedArrivals:
    """Hot, regular and cold users superposed; intensities follow the schedule.

    Hot and cold requests are Poisson. Regular visits begin by a renewal process per user (log-normal
    revisit gaps) that runs in operational time, the integral of the regular intensity: a burst makes the
    clock of revisits run faster and silence stops it. The streams start stationary: first visits come after
    an equilibrium residual gap, and visits are under way at time 0.
    """

    WARM_UP_SECONDS = 120.0  # visits that began before 0; three times the longest gap inside a visit

    def __init__(self, population: Population, visits: VisitLaw, schedule: Schedule, rate_per_second: float, seed: int) -> None:
        self._population = population
        self._visits = visits
        self._schedule = schedule
        self._rate = rate_per_second
        self._seed = seed

    def arrivals(self) -> Iterator[Arrival]:
        """In order of time, without end (or until no intensity is left)."""
        chance = stream_of(self._seed, Purpose.ARRIVALS)
        order = stream_of(self._seed, Purpose.USER_ORDER).permutation(self._population.users)
        return heapq.merge(self._hot(chance.spawn(1)[0], order), self._cold(chance.spawn(1)[0]), self._regular(chance.spawn(1)[0]))

    def _hot(self, chance: np.random.Generator, order: NDArray[np.int64]) -> Iterator[Arrival]:
        total = 0.0
        while True:
            total += chance.exponential() / self._rate
            at = self._schedule.hot.when(total)
            if math.isinf(at):
                return
            moment = self._schedule.at(at)
            place = moment.user_offset + int(chance.integers(moment.hot_users))
            yield Arrival(at, int(order[place % self._population.users]))

    def _cold(self, chance: np.random.Generator) -> Iterator[Arrival]:
        total, user = 0.0, self._population.users
        while True:
            total += chance.exponential() / self._rate
            at = self._schedule.cold.when(total)
            if math.isinf(at):
                return
            yield Arrival(at, user)
            user += 1

    def _regular(self, chance: np.random.Generator) -> Iterator[Arrival]:
        regular, visits = self._schedule.regular, self._visits
        if regular.per_cycle <= 0:
            return
        begin = regular.total(-self.WARM_UP_SECONDS)
        # Operational time is in base-rate seconds: a visit brings requests_mean requests, so users / gap_mean visits
        # a second times requests_mean must be the base rate.
        gap_mean = self._population.users * visits.requests_mean / self._rate
        mu, sigma = math.log(gap_mean) - visits.revisit_sigma**2 / 2, visits.revisit_sigma
        users = self._population.users
        # Equilibrium residual life: uniform part of a length-biased gap.
        residual = chance.random(users) * chance.lognormal(mu + sigma**2, sigma, users)
        due = [(begin + float(value), user) for user, value in enumerate(residual)]
        heapq.heapify(due)
        ongoing: list[tuple[float, int]] = []
        stay = 1.0 - 1.0 / visits.requests_mean
        start_at = regular.when(due[0][0])
        while True:
            if not ongoing or start_at <= ongoing[0][0]:
                total, user = due[0]
                at = start_at
                heapq.heapreplace(due, (total + float(chance.lognormal(mu, sigma)), user))
                start_at = regular.when(due[0][0])
            else:
                at, user = heapq.heappop(ongoing)
                if self._schedule.at(at).rate_factor <= 0:
                    continue  # silence ends the visits under way
            if chance.random() < stay:
                heapq.heappush(ongoing, (at + visits.gap(chance), user))
            if at >= 0:
                yield Arrival(at, user)


class SmoothArrivals:
    """Poisson arrivals of power-law users: no classes, no visits."""

    def __init__(self, users: PowerLaw, schedule: Schedule, rate_per_second: float, seed: int) -> None:
        self._users = users
        self._schedule = schedule
        self._rate = rate_per_second
        self._seed = seed

    def arrivals(self) -> Iterator[Arrival]:
        """In order of time, without end."""
        chance = stream_of(self._seed, Purpose.ARRIVALS)
        total = 0.0
        while True:
            total += chance.exponential() / self._rate
            at = self._schedule.all.when(total)
            if math.isinf(at):
                return
            moment = self._schedule.at(at)._replace(row_offset=0)
            yield Arrival(at, int(self._users.draw(chance, 1, moment)[0]))


class UserLog:
    """One user's append-only events; only as many as a request can carry are kept in memory."""

    def __init__(
        self, items: NDArray[np.int64], actions: NDArray[np.int64], timestamps: NDArray[np.int64], total: int, keep: int = 0
    ) -> None:
        """A past of `items`, the newest of `total` events; at least `keep` events are remembered, and as many as the past has."""
        self._keep = max(keep, items.shape[0])
        capacity = self._keep + max(64, self._keep // 4)
        self._items = np.zeros(capacity, dtype=np.int32)
        self._actions = np.zeros(capacity, dtype=np.int16)
        self._timestamps = np.zeros(capacity, dtype=np.int64)
        self._length: int = 0
        self._first: int = total - items.shape[0]  # position in the whole log of the first event kept
        self.start = -1  # position of the first event of the last window; -1: no window yet
        self.seen_seconds = -math.inf
        self.append(items, actions, timestamps)

    @property
    def total(self) -> int:
        """Events in the whole log, those forgotten included."""
        return self._first + self._length

    @property
    def last_timestamp(self) -> int:
        """Unix seconds of the newest event."""
        return int(self._timestamps[self._length - 1])

    def append(self, items: NDArray[np.int64], actions: NDArray[np.int64], timestamps: NDArray[np.int64]) -> None:
        """Add events; the oldest beyond what a request can carry are forgotten when space runs out."""
        count = items.shape[0]
        if self._length + count > self._items.shape[0]:
            drop = self._length + count - self._keep
            for array in (self._items, self._actions, self._timestamps):
                array[: self._length - drop] = array[drop : self._length].copy()
            self._length -= drop
            self._first += drop
        place = slice(self._length, self._length + count)
        self._items[place], self._actions[place], self._timestamps[place] = items, actions, timestamps
        self._length += count

    def window(self, tokens_max: int, fresh: bool) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Newest events, at most `tokens_max`; inside a visit the beginning moves only by quarter steps.

        A fresh visit may reach back further than the last one did (the trend to longer histories); inside
        a visit the beginning never moves back, so that appends keep their prefix.
        """
        if fresh or self.start < 0:
            self.start = max(self._first, window_start(self.total, tokens_max))
        else:
            self.start += window_start(self.total - self.start, tokens_max)
        place = slice(self.start - self._first, self._length)
        return self._items[place].astype(np.int64), self._actions[place].astype(np.int64), self._timestamps[place].copy()


class Stream(msgspec.Struct, frozen=True, kw_only=True):
    """What a synthetic workload is made of, beside its seed and rate."""

    population: Population
    visits: VisitLaw
    schedule: Schedule
    smooth: bool = False  # power-law users and rows instead of classes
    user_exponent: float = 0.8
    row_exponent: float = 0.8
    row_shift: float = 100.0
    epoch_unix_seconds: int = 1_767_225_600  # 2026-01-01: fixed, so that a seed gives the same bytes on any day


class SyntheticWorkload:
    """A workload from a schedule of regimes; see the module for its three kinds of users."""

    def __init__(self, name: str, stream: Stream, rows: RowLaw, rate_per_second: float, seed: int, loop: bool = False) -> None:
        if not (math.isfinite(rate_per_second) and rate_per_second > 0):
            raise ValueError("rate_per_second must be a finite number > 0")
        if seed < 0:
            raise ValueError("seed must be >= 0")
        self.name = name
        self.duration_seconds = math.inf if loop else stream.schedule.cycle_seconds
        self._stream = stream
        self._rows = rows
        self._rate = rate_per_second
        self._seed = seed

    def requests(self) -> Iterator[Request]:
        """Requests in order of `at_ns`, from the beginning; each call starts anew with the same bytes."""
        logs: dict[int, UserLog] = {}
        chance = stream_of(self._seed, Purpose.CANDIDATES)
        for arrival in self._arrivals():
            if arrival.at_seconds >= self.duration_seconds:
                return
            yield self._request(arrival, logs, chance)

    def _arrivals(self) -> Iterator[Arrival]:
        stream = self._stream
        if stream.smooth:
            users = PowerLaw(stream.population.users, stream.user_exponent, 0.0, stream_of(self._seed, Purpose.USER_ORDER))
            return SmoothArrivals(users, stream.schedule, self._rate, self._seed).arrivals()
        return MixedArrivals(stream.population, stream.visits, stream.schedule, self._rate, self._seed).arrivals()

    def _request(self, arrival: Arrival, logs: dict[int, UserLog], chance: np.random.Generator) -> Request:
        population, moment = self._stream.population, self._stream.schedule.at(arrival.at_seconds)
        log = logs.get(arrival.user)
        if log is None:
            log = self._log(arrival.user, moment, arrival.at_seconds)
            if arrival.user < population.users:  # cold users never return: nothing to remember
                logs[arrival.user] = log
        idle_seconds = self._stream.visits.gap_max_seconds / self._stream.visits.compression
        fresh = arrival.at_seconds - log.seen_seconds > idle_seconds
        items, actions, timestamps = log.window(self._window_tokens(arrival.user, moment), fresh)
        candidates = draw_distinct(self._rows, chance, population.candidates, moment)
        self._consume(log, candidates, arrival.at_seconds, chance, moment)
        return Request(round(arrival.at_seconds * NS_PER_SECOND), arrival.user, items, actions, timestamps, candidates)

    def _window_tokens(self, user: int, moment: Moment) -> int:
        """A user's window: the same place between low and high for life."""
        place = (user * 0x9E3779B97F4A7C15 + self._seed) % 2**64 / 2**64
        tokens = moment.history_tokens_low + place * (moment.history_tokens_high - moment.history_tokens_low)
        return min(self._stream.population.tokens_max, int(tokens))

    def _log(self, user: int, moment: Moment, at_seconds: float) -> UserLog:
        """A user's past before the stream: rows of the present popularity, gaps of visits and revisits."""
        population, visits = self._stream.population, self._stream.visits
        chance = stream_of(self._seed, Purpose.LOGS, user)
        count = population.tokens_max
        gaps = np.minimum(chance.lognormal(visits.gap_mu, visits.gap_sigma, count), visits.gap_max_seconds)
        ages = np.cumsum(np.maximum(1, gaps.astype(np.int64)))[::-1]
        timestamps = self._log_time(at_seconds) - ages
        # A total beyond one window spreads users evenly over the phases of the sliding window.
        total = count + int(chance.integers(0, count))
        return UserLog(self._rows.draw(chance, count, moment), draw_actions(chance, count, population.actions), timestamps, total)

    def _consume(self, log: UserLog, candidates: NDArray[np.int64], at_seconds: float, chance: np.random.Generator, moment: Moment) -> None:
        """After the answer the user takes some of the candidates; they are the next events of the log."""
        log.seen_seconds = at_seconds
        count = min(int(chance.poisson(moment.events_per_request)), candidates.shape[0], 64)
        if count:
            dwell = chance.integers(1, 6, count)
            begin = max(self._log_time(at_seconds), log.last_timestamp)
            actions = draw_actions(chance, count, self._stream.population.actions)
            log.append(candidates[:count], actions, begin + np.cumsum(dwell))

    def _log_time(self, at_seconds: float) -> int:
        return self._stream.epoch_unix_seconds + int(at_seconds * self._stream.visits.compression)


def draw_actions(chance: np.random.Generator, count: int, actions: int) -> NDArray[np.int64]:
    """Kinds of interaction, each half as frequent as the one before (views, likes, shares, ...)."""
    return np.minimum(chance.geometric(0.5, count) - 1, actions - 1).astype(np.int64)


def stream_of(seed: int, *path: int) -> np.random.Generator:
    """An independent generator for one purpose of one seed."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, *path])))
