"""A fleet's synthetic traffic as a `BlockWorkload`: sizes, laws and a schedule in, blocks out."""

import hashlib
import math
from collections.abc import Iterator
from functools import lru_cache

import msgspec
import numpy as np
from numpy.typing import NDArray

from agents.workloads import quantiles
from agents.workloads.block_buffers import Room, block_of, new_buffers
from agents.workloads.block_stream import (
    CLASS_BITS,
    CLASSES,
    FOREVER_NS,
    PAST_SECONDS,
    Arrivals,
    Column,
    Key,
    Law,
    Number,
    StreamState,
    begin,
    draw_recent,
    fill,
)
from agents.workloads.blocks import RequestBlock
from agents.workloads.generators import NS_PER_SECOND, VisitLaw
from agents.workloads.regimes import Keyframe, Schedule

VERSION = 2  # raise when the same parameters give other bytes: what was trained on an older stream is then another thing
VISITORS_PER_BUCKET = 8.0  # of the time wheel: lists stay short enough to be sorted by insertion
BUCKETS_MAX = 1 << 22
NODES_MAX = 4096
_PAST_REQUESTS = 1 << 48  # numbers that no stream's own requests reach: they choose candidates
RECENT_DRAWS_PER_ROW = 64  # a tail that is drawn more rarely has not been filled in any running fleet either
DURATION_SECONDS_MAX = 86_400.0


class FleetStream(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a fleet's traffic is made of, beside its nodes, rate and seed. Users are counted per node, rows for the fleet."""

    users_per_node: int  # regular users; the hot set is a part of them
    items: int
    rows: int  # an item's main row and the rows of its features lie side by side
    candidates: int
    tokens_max: int
    item_exponent: float  # Zipf-Mandelbrot, of the items in histories
    item_shift: float
    visits: VisitLaw
    smooth: bool = False  # users and rows by power laws instead of hot sets
    user_exponent: float = 0.8
    row_exponent: float = 0.8
    row_shift: float = 1000.0
    flips_seconds: tuple[float, ...] = ()  # moments at which a new model makes every prefix another one

    def __post_init__(self) -> None:
        """Refuse sizes no stream can be drawn from, naming the field."""
        for name in ("users_per_node", "items", "rows", "candidates", "tokens_max"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1")
        if self.rows % CLASSES or self.items < CLASSES or self.rows < self.items:
            raise ValueError(f"rows must be a multiple of {CLASSES}, items at least {CLASSES} and at most rows")
        if self.rows < 2 * self.candidates:
            raise ValueError("rows must be at least twice candidates")


class FleetWorkload:
    """A seeded stream of a fleet's requests: the same arguments give the same bytes, however it is cut into blocks."""

    version = VERSION

    def __init__(
        self,
        name: str,
        stream: FleetStream,
        keyframes: list[Keyframe],
        *,
        nodes: int,
        rate_per_second: float,
        seed: int,
        row_shift: int,
    ) -> None:
        """`keyframes` speak of one node's hot users and end the stream; `rate_per_second` is the fleet's base rate."""
        _require(1 <= nodes <= NODES_MAX, f"nodes: must be 1 to {NODES_MAX}")
        _require(math.isfinite(rate_per_second) and rate_per_second > 0, "rate_per_second: must be a finite number > 0")
        _require(seed >= 0, "seed: must be >= 0")
        _require(0 <= row_shift <= CLASS_BITS, f"row_shift: must be 0 to {CLASS_BITS}")
        _require(keyframes[-1].at_seconds <= DURATION_SECONDS_MAX, f"duration_seconds: at most {DURATION_SECONDS_MAX:g}")
        self.name = name
        self.duration_seconds = keyframes[-1].at_seconds
        self.row_shift = row_shift
        self.rows = stream.rows >> row_shift  # size of the sampled table: row numbers lie below it
        self._stream = stream
        self._keyframes = keyframes
        self._users = stream.users_per_node * nodes
        self._nodes = nodes
        self._rate = rate_per_second
        self._seed = seed

    @property
    def digest(self) -> str:
        """Hash of everything the stream follows from, the generator's version included."""
        parts = (VERSION, self.name, self._stream, self._keyframes, self._nodes, self._rate, self._seed, self.row_shift)
        return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()

    def blocks(self, block_tokens: int) -> Iterator[RequestBlock]:
        """Blocks in order of time; each call starts anew with the same bytes."""
        _require(block_tokens >= 1, "block_tokens: must be >= 1")
        return self._drawn(self._new_state(block_tokens), block_tokens)

    def past_blocks(self, block_tokens: int) -> Iterator[RequestBlock]:
        """Requests of the minute before the stream, timed from that minute's begin: the same users, other candidates."""
        state = self._new_state(block_tokens)
        state.numbers[Number.BEGIN_NS], state.numbers[Number.END_NS] = 0, state.numbers[Number.BEGIN_NS]
        state.numbers[Number.REQUESTS] = _PAST_REQUESTS
        return self._drawn(state, block_tokens)

    def _drawn(self, state: StreamState, block_tokens: int) -> Iterator[RequestBlock]:
        begin(state)
        room = self._room(block_tokens)
        while True:
            out = new_buffers(room)
            count = fill(state, out, room.requests)
            if count:
                yield block_of(out, count, self._stream.candidates)
            if count < room.requests:
                return

    def recent_rows(self, count: int, gap: int = 0) -> NDArray[np.int64]:
        """At most `count` distinct rows, newest first: what a recency list holds after the first moment's candidates went on for ever.

        A cache that starts with them starts as after long running; filling it by requests takes minutes of stream. With a
        `gap` only rows that were asked for twice within so many references, as behind a doorkeeper.
        """
        key = self.digest, count, gap
        if key not in _recent:
            while len(_recent) >= _RECENT_KEPT:
                del _recent[next(iter(_recent))]
            _recent[key] = self._draw_recent(count, gap)
        return _recent[key].copy()

    def _draw_recent(self, count: int, gap: int) -> NDArray[np.int64]:
        count = min(max(count, 0), self.rows)
        rows, drawn = np.zeros(self.rows, np.int64), np.zeros(self.rows, np.int64)
        found = draw_recent(self._new_state(1), rows, drawn, gap, count, RECENT_DRAWS_PER_ROW * count)
        rows = rows[:found]
        return np.asarray(rows[drawn[rows] == -1])

    def _room(self, block_tokens: int) -> Room:
        stream, shift = self._stream, self.row_shift
        return Room(stream.tokens_max // block_tokens + 1, (stream.tokens_max >> shift) + 1, (stream.candidates >> shift) + 1)

    def _new_state(self, block_tokens: int) -> StreamState:
        moments, totals, step_ns = self._grid()
        end_ns = step_ns * (moments.shape[0] - 1)  # the grid's own end: rounding steps to ns must not reach beyond it
        bucket_ns = self._bucket_ns(end_ns)
        numbers = np.zeros(len(Number), np.int64)
        stream = self._stream
        item_ranks = stream.items >> CLASS_BITS
        given = {
            Number.USERS: self._users,
            Number.STEP_NS: step_ns,
            Number.BUCKET_NS: bucket_ns,
            Number.BEGIN_NS: round(PAST_SECONDS * NS_PER_SECOND),
            Number.END_NS: end_ns,
            Number.CANDIDATES: stream.candidates,
            Number.TOKENS_MAX: stream.tokens_max,
            Number.ROWS_PER_CLASS: stream.rows >> CLASS_BITS,
            Number.ITEM_STRIDE: (stream.rows >> CLASS_BITS) // item_ranks,
            Number.ROW_SHIFT: self.row_shift,
            Number.BLOCK_TOKENS: block_tokens,
            Number.STAY: round((1.0 - 1.0 / stream.visits.requests_mean) * 2**24),
            Number.SMOOTH: int(stream.smooth),
            # users / gap visits a second times requests_mean must be the base rate
            Number.REVISIT_UNIT: round(1e6 * self._users * stream.visits.requests_mean / self._rate),
            Number.HOT_NS: FOREVER_NS,
            Number.COLD_NS: FOREVER_NS,
        }
        for number, value in given.items():
            numbers[number] = value
        return StreamState(
            moments=moments,
            totals=totals,
            tables=_tables(self._stream, self._users),
            keys=np.random.SeedSequence([self._seed, VERSION]).generate_state(len(Key), np.uint64).astype(np.uint64),
            reached=np.zeros(len(Arrivals)),
            numbers=numbers,
            logs=np.zeros((self._users, 2), np.int32),
            dues=np.zeros(self._users, np.int64),
            nexts=np.zeros(self._users, np.int32),
            heads=np.zeros(end_ns // bucket_ns + 1, np.int32),
        )

    def _bucket_ns(self, span_ns: int) -> int:
        wanted = VISITORS_PER_BUCKET / self._rate * NS_PER_SECOND
        return max(1, round(wanted), span_ns // BUCKETS_MAX)

    def _grid(self) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
        """Moments [G, Column], integrated intensities [G, Arrivals] and ns between grid points, the past included."""
        first = self._keyframes[0].traffic
        later = [Keyframe(frame.at_seconds + PAST_SECONDS, frame.traffic) for frame in self._keyframes]
        grid = Schedule([Keyframe(0.0, first), *later]).tabulated()
        values = grid.values
        moments = np.zeros((grid.seconds.shape[0], len(Column)))
        for name in ("RATE_FACTOR", "HOT_ROW_RATIO", "USER_OFFSET"):
            moments[:, Column[name]] = values[name.lower()]
        moments[:, Column.HOT_USERS] = values["hot_users"] * self._nodes
        moments[:, Column.USER_OFFSET] *= self._nodes
        moments[:, Column.TOKENS_LOW] = values["history_tokens_low"]
        moments[:, Column.TOKENS_HIGH] = values["history_tokens_high"]
        moments[:, Column.NEW_TOKENS] = values["events_per_request"]
        moments[:, Column.HOT_ROWS] = values["hot_rows"] / CLASSES
        moments[:, Column.ROW_OFFSET] = values["row_offset"] / CLASSES
        flips = np.array(self._stream.flips_seconds) + PAST_SECONDS
        moments[:, Column.GENERATION] = np.searchsorted(flips, grid.seconds, side="right")
        totals = np.column_stack([grid.totals["hot"] * self._rate, grid.totals["cold"] * self._rate, grid.totals["regular"]])
        if self._stream.smooth:  # everybody comes by rank, in one Poisson stream
            totals[:, Arrivals.HOT] = (grid.totals["hot"] + grid.totals["regular"]) * self._rate
        return moments, totals, round(float(grid.seconds[1]) * NS_PER_SECOND)


_RECENT_KEPT = 16
_recent: dict[tuple[str, int, int], NDArray[np.int64]] = {}  # methods compared on one stream all begin with it; a draw takes a second


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(what)


@lru_cache(maxsize=16)  # some ten thousand quantiles in Python
def _tables(stream: FleetStream, users: int) -> NDArray[np.int64]:
    visits = stream.visits
    tables = np.zeros((len(Law), quantiles.STEPS + 1), np.int64)
    tables[Law.EXPONENTIAL] = quantiles.exponential_table()
    tables[Law.GAP] = quantiles.gap_table(visits.gap_mu, visits.gap_sigma, visits.gap_max_seconds, visits.compression)
    tables[Law.REVISIT] = quantiles.lognormal_table(visits.revisit_sigma)
    tables[Law.RESIDUAL] = quantiles.length_biased_table(visits.revisit_sigma)
    items, shift = stream.items >> CLASS_BITS, stream.item_shift / CLASSES
    tables[Law.ITEM] = quantiles.zipf_mandelbrot_table(items, stream.item_exponent, shift)
    if stream.smooth:
        tables[Law.ROW] = quantiles.zipf_mandelbrot_table(stream.rows >> CLASS_BITS, stream.row_exponent, stream.row_shift / CLASSES)
        tables[Law.USER] = quantiles.zipf_mandelbrot_table(users, stream.user_exponent, 0.0)
    return tables
