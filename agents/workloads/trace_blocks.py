"""A log replayed as blocks, fast enough to advise on a million events.

The same rules as in `replay.py`, with two additions for profiles whose requests carry thousands of rows:

- An item owns `rows_per_item` rows, its main row and those of its features. Histories look up main rows, candidates all.
- Rows that explore the rest of the table lie beyond the log's items and are drawn anew for every request.

A popular past is a stretch of all the log's events in one shuffled order, from a place of the user's own; so the followed rows of any
history are stretches of two lists, the shuffled one and the user's own, and what is not followed is never looked at.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from agents.numerics.jit import kernel
from agents.profiles import Profile
from agents.workloads.block_adapter import ROW_SHIFT_MAX, row_numbers
from agents.workloads.block_buffers import Buffers, Room, block_of, new_buffers
from agents.workloads.blocks import RequestBlock
from agents.workloads.generators import stream_of
from agents.workloads.quantiles import mixed
from agents.workloads.replay import Pace, ReplayRules, Timeline, TraceWorkload, load_requests
from agents.workloads.trace import Columns
from agents.workloads.trace_file import RequestTable, read_header

THIN_PER_SECOND = 20.0  # a log slower than this stands for a fleet only if its time is compressed
COMPRESSED_PER_SECOND = 200.0
ROWS_PER_ITEM = 16  # 500 candidates of 16 features make the 8,000 rows of the GPU profiles
FOLLOWED_ITEMS_MIN = 256  # a sample of rows so small that one popular item decides says nothing
_ROW_SHIFT = 8
_CANDIDATES_OF_FEATURES = 1_000  # candidate rows from which on a request asks for features, not items
_EVENT_ROWS_MAX = 1 << 28  # rows of all items: their numbers take 8 bytes each
_TRIES_PER_CANDIDATE = 4  # where the log is narrow, draws repeat; what is still missing explores the table
_PHASE_BITS = np.uint64(48)


class _Followed(NamedTuple):
    """Of sequences of events laid end to end, those whose item's main row is followed."""

    places: NDArray[np.int64]  # [F] in their sequence, rising
    rows: NDArray[np.int64]  # [F] number of the main row
    starts: NDArray[np.int64]  # [sequences + 1] into the two
    lengths: NDArray[np.int64]  # [sequences] events, followed or not


class _Log(NamedTuple):
    """E events of a log, and what their items' rows are numbered in the sample."""

    shuffled: _Followed  # one sequence of all events
    own: _Followed  # a sequence per user of the log
    begins: NDArray[np.int64]  # [requests of the table] place of a request's first event among the user's own
    in_time: NDArray[np.int32]  # [E] items in order of time
    offsets: NDArray[np.int64]  # [requests of the table + 1] into `in_time`
    rows: NDArray[np.int32]  # numbers of the followed rows, item by item
    row_starts: NDArray[np.int64]  # [items + 1]


class _Sizes(NamedTuple):
    """What the rules and the profile ask for, as the kernel takes it."""

    seed: np.uint64
    block_tokens: int
    tokens_low: int
    tokens_max: int
    near_items: int
    near_events: int
    explore_followed: float
    rows_per_item: int
    rows_followed: int  # of the items
    table_followed: int
    past_rule: int
    row_shift: int


class _Users(NamedTuple):
    """What is known of each playing user."""

    written: NDArray[np.int64]  # [U] events of the past and since; 0: not seen yet
    first: NDArray[np.int64]  # [U] first event carried
    past: NDArray[np.int64]  # [U] events before the log
    begins: NDArray[np.int64]  # [U] place among the user's own events at which the play began


_PAST_RULES = {"popular": 0, "own": 1, "short": 2}


class TraceBlocks:
    """A log as a `BlockWorkload`. With `nodes`, only the users who fall to one of so many nodes are drawn."""

    def __init__(
        self, table: RequestTable, workload: TraceWorkload, rules: ReplayRules, *, seed: int, row_shift: int, rows_per_item: int = 1
    ) -> None:
        """`workload` gives the pace; `ValueError` if the items' rows do not fit the table."""
        if not 0 <= row_shift <= ROW_SHIFT_MAX:
            raise ValueError(f"row_shift: must be 0 to {ROW_SHIFT_MAX}")
        if rows_per_item < 1 or rows_per_item > rules.candidates:
            raise ValueError("rows_per_item: must be 1 to the candidates of a request")
        self.name = workload.name
        self.duration_seconds = workload.duration_seconds
        self.row_shift = row_shift
        self._timeline = workload.timeline()
        self._rules = rules
        self._log = _log_of(table, rows_per_item, row_shift, rules, seed)
        self._rows_per_item = rows_per_item
        self._seed = seed
        self.rows = self._table_followed

    @property
    def requests(self) -> int:
        """Requests of the whole stream."""
        return int(self._timeline.at_ns.shape[0])

    @property
    def _table_followed(self) -> int:
        return max(self._rules.rows >> self.row_shift, int(self._log.rows.shape[0]) + 1)

    def blocks(self, block_tokens: int, node: int = 0, nodes: int = 1) -> Iterator[RequestBlock]:
        """Blocks in order of time; each call starts anew with the same bytes."""
        sizes = self._sizes(block_tokens)
        timeline = _of_node(self._timeline, self._seed, node, nodes)
        users = _Users(*(np.zeros(timeline.user_count, np.int64) for _ in _Users._fields))
        stamps = np.full(self._log.row_starts.shape[0], -1, np.int64)
        room = self._room(block_tokens)
        for first in range(0, timeline.at_ns.shape[0], room.requests):
            out = new_buffers(room)
            count = min(room.requests, timeline.at_ns.shape[0] - first)
            _fill(self._log, sizes, timeline, users, stamps, out, first, count)
            yield block_of(out, count, self._rules.candidates)

    def _sizes(self, block_tokens: int) -> _Sizes:
        rules = self._rules
        items = rules.candidates // self._rows_per_item
        near = max(0, items - round(items * rules.explore_ratio))
        return _Sizes(
            seed=np.uint64(self._seed),
            block_tokens=block_tokens,
            tokens_low=min(rules.tokens_max, rules.history_tokens_min * 4 // 3 + 4),
            tokens_max=rules.tokens_max,
            near_items=near,
            near_events=rules.near_events,
            explore_followed=rules.candidates / 2**self.row_shift,
            rows_per_item=self._rows_per_item,
            rows_followed=int(self._log.rows.shape[0]),
            table_followed=self._table_followed,
            past_rule=_PAST_RULES[rules.history],
            row_shift=self.row_shift,
        )

    def _room(self, block_tokens: int) -> Room:
        rules = self._rules
        widest = int(np.diff(self._log.row_starts).max(initial=1))
        near = rules.candidates // self._rows_per_item * widest
        return Room(rules.tokens_max // block_tokens + 1, rules.tokens_max, near + (rules.candidates >> self.row_shift) + 1)


def open_blocks(
    path: Path,
    profile: Profile,
    rules: ReplayRules,
    *,
    seed: int,
    rate_per_second: float | None = None,
    rows_per_item: int | None = None,
    columns: Columns | None = None,
    sort: bool = False,
) -> tuple[TraceBlocks, list[str]]:
    """Blocks from any supported file, at its own pace if that is a fleet's, and the notes on everything that was assumed."""
    table, notes = load_requests(path, rules, seed, columns, sort=sort)
    if (header := read_header(path)) is not None:
        rules = msgspec.structs.replace(rules, history=header.history_rule)  # as it was imported
    span_seconds = (int(table.ts_ns[-1]) - int(table.ts_ns[0])) / 1e9
    own_per_second = table.ts_ns.shape[0] / span_seconds if span_seconds > 0 else 0.0
    pace = Pace(speed=1.0) if rate_per_second is None else Pace(rate_per_second=rate_per_second)
    if rate_per_second is None and own_per_second < THIN_PER_SECOND:
        notes.append(
            f"the log has {own_per_second:.2g} requests/s, too thin for a fleet: its time is compressed to {COMPRESSED_PER_SECOND:g}/s"
        )
        pace = Pace(rate_per_second=COMPRESSED_PER_SECOND)
    workload = TraceWorkload(path.stem, table, rules, pace, seed)
    each = rows_per_item or (ROWS_PER_ITEM if rules.candidates >= _CANDIDATES_OF_FEATURES else 1)
    row_shift = min(_ROW_SHIFT, max(0, (int(np.unique(table.items).shape[0]) // FOLLOWED_ITEMS_MIN).bit_length() - 1))
    blocks = TraceBlocks(table, workload, rules, seed=seed, row_shift=row_shift, rows_per_item=each)
    assumed = f"an item owns {each} of the table's {profile.rows} rows; one row in {2**row_shift} is followed"
    return blocks, [*notes, *workload.notes, assumed]


def _log_of(table: RequestTable, rows_per_item: int, row_shift: int, rules: ReplayRules, seed: int) -> _Log:
    lengths = np.diff(table.offsets)
    ids, items = np.unique(table.items, return_inverse=True)
    count = max(1, int(ids.shape[0]))
    if count * rows_per_item > min(rules.rows, _EVENT_ROWS_MAX):
        raise ValueError(f"rows_per_item: {count} items of {rows_per_item} rows each do not fit the table's {rules.rows} rows")
    numbers = row_numbers(count * rows_per_item, row_shift).reshape(count, rows_per_item)
    main = numbers[:, 0]
    keys, users = np.unique(table.users, return_inverse=True)
    owners = np.repeat(users, lengths)
    order = np.argsort(owners, kind="stable")
    own_lengths = np.bincount(owners, minlength=keys.shape[0]).astype(np.int64)
    own_starts = np.concatenate(([0], np.cumsum(own_lengths)))
    place_of = np.empty_like(order)
    place_of[order] = np.arange(order.shape[0]) - own_starts[owners[order]]
    shuffled = items[stream_of(seed, 3).permutation(items.shape[0])]
    firsts = np.minimum(table.offsets[:-1], max(0, order.shape[0] - 1))  # a last request may bring nothing
    return _Log(
        shuffled=_followed(main[shuffled], np.array([items.shape[0]], np.int64)),
        own=_followed(main[items[order]], own_lengths),
        begins=place_of[firsts].astype(np.int64) if order.shape[0] else np.zeros(lengths.shape[0], np.int64),
        in_time=items.astype(np.int32),
        offsets=table.offsets,
        rows=numbers[numbers >= 0].astype(np.int32),
        row_starts=np.concatenate(([0], np.cumsum((numbers >= 0).sum(axis=1)))).astype(np.int64),
    )


def _followed(rows: NDArray[np.int64], lengths: NDArray[np.int64]) -> _Followed:
    """Of sequences laid end to end; `rows` has the number of every event's row, -1 where it is not followed."""
    starts = np.concatenate(([0], np.cumsum(lengths)))
    found = np.flatnonzero(rows >= 0)
    sequence = np.searchsorted(starts, found, side="right") - 1
    return _Followed(found - starts[sequence], rows[found], np.searchsorted(found, starts).astype(np.int64), lengths)


def _of_node(timeline: Timeline, seed: int, node: int, nodes: int) -> Timeline:
    """The requests whose users fall to the node: by the high bits of the keys, as `user_keys` has them."""
    if nodes == 1:
        return timeline
    keys = np.zeros(timeline.user_count, np.uint64)
    _number_users(keys, np.uint64(seed))
    keep = (((keys >> np.uint64(32)) * np.uint64(nodes)) >> np.uint64(32) == node)[timeline.users]
    return Timeline(timeline.source[keep], timeline.users[keep], timeline.at_ns[keep], timeline.user_count)


@kernel
def _number_users(keys: NDArray[np.uint64], seed: np.uint64) -> None:
    for user in range(keys.shape[0]):
        keys[user] = mixed(seed, np.uint64(user)) | np.uint64(1)


@kernel
def _fill(
    log: _Log, sizes: _Sizes, timeline: Timeline, users: _Users, stamps: NDArray[np.int64], out: Buffers, first: int, count: int
) -> None:
    for place in range(count):
        request = first + place
        user, source = timeline.users[request], timeline.source[request]
        _carry(log, sizes, users, user, source)
        key = mixed(sizes.seed, np.uint64(user))
        out.at_ns[place] = timeline.at_ns[request]
        out.user_keys[place] = key | np.uint64(1)
        out.history_tokens[place] = users.written[user] - users.first[user]
        _write_blocks(sizes, users, user, key, out, place)
        _write_history(log, sizes, users, user, key, out, place)
        _write_candidates(log, sizes, stamps, request, source, out, place)
        users.written[user] += log.offsets[source + 1] - log.offsets[source]


@kernel
def _carry(log: _Log, sizes: _Sizes, users: _Users, user: int, source: int) -> None:
    """What part of the history this request carries: the window slides by a quarter of itself."""
    chance = mixed(~sizes.seed, np.uint64(user))
    window = sizes.tokens_low + np.int64(((chance >> np.uint64(32)) * np.uint64(sizes.tokens_max - sizes.tokens_low + 1)) >> np.uint64(32))
    step = max(int(window) // 4, 1)
    if users.written[user] == 0:
        phase = np.int64(chance & np.uint64(0xFFFF)) * step >> 16
        users.past[user] = 1 if sizes.past_rule == 2 else window - phase
        users.written[user] = users.past[user]
        users.begins[user] = log.begins[source]
    over = users.written[user] - users.first[user] - window
    if over > 0:
        users.first[user] += (over + step - 1) // step * step


@kernel
def _write_blocks(sizes: _Sizes, users: _Users, user: int, key: np.uint64, out: Buffers, place: int) -> None:
    prefix = mixed(key, np.uint64(users.first[user]))
    start = out.offsets[0, place]
    blocks = (users.written[user] - users.first[user]) // sizes.block_tokens
    for block in range(blocks):
        out.block_hashes[start + block] = mixed(prefix, np.uint64(block))
    out.offsets[0, place + 1] = start + blocks


@kernel
def _write_history(log: _Log, sizes: _Sizes, users: _Users, user: int, key: np.uint64, out: Buffers, place: int) -> None:
    """The past, then what the user did since the play began: the own events from there on, again and again."""
    first, last, past = users.first[user], users.written[user], users.past[user]
    own = user % log.own.lengths.shape[0]
    events, own_events = log.shuffled.lengths[0], max(log.own.lengths[own], 1)
    at = out.offsets[1, place]
    since = first
    if sizes.past_rule != 1 and first < past:
        begin = np.int64(((key >> np.uint64(32)) * np.uint64(max(events, 1))) >> np.uint64(32))
        at = _write_stretch(log.shuffled, 0, begin + first, min(past, last) - first, out.history_rows, at)
        since = past
    laps = past // own_events + 1  # keeps the place positive where the own events also make the past
    begin = users.begins[user] + since - past + laps * own_events
    out.offsets[1, place + 1] = _write_stretch(log.own, own, begin, last - since, out.history_rows, at)


@kernel
def _write_stretch(found: _Followed, sequence: int, begin: int, count: int, rows: NDArray[np.int64], at: int) -> int:
    """Rows followed among `count` events from place `begin` on of a sequence that repeats; returns where the next one goes."""
    low, high, length = found.starts[sequence], found.starts[sequence + 1], found.lengths[sequence]
    if low == high:
        return at
    begin = begin % length
    place, end = low, high
    while place < end:
        middle = (place + end) >> 1
        if found.places[middle] < begin:
            place = middle + 1
        else:
            end = middle
    lap = 0
    if place == high:
        place, lap = low, 1
    while found.places[place] + lap * length - begin < count:
        rows[at] = found.rows[place]
        at += 1
        place += 1
        if place == high:
            place, lap = low, lap + 1
    return at


@kernel
def _write_candidates(log: _Log, sizes: _Sizes, stamps: NDArray[np.int64], request: int, source: int, out: Buffers, place: int) -> None:
    """What is taken next, items popular in the log near that time, and rows of the rest of the table."""
    at = out.offsets[2, place]
    first, last = log.offsets[source], log.offsets[source + 1]
    low, high = max(0, first - sizes.near_events), min(log.in_time.shape[0], first + sizes.near_events)
    key = mixed(sizes.seed ^ np.uint64(0x63616E64), np.uint64(request))
    listed = 0
    for draw in range(last - first + _TRIES_PER_CANDIDATE * sizes.near_items):
        if listed >= sizes.near_items or high <= low:
            break
        event = first + draw
        if event >= last:
            event = low + np.int64(((mixed(key, np.uint64(draw)) >> np.uint64(32)) * np.uint64(high - low)) >> np.uint64(32))
        item = log.in_time[event]
        if stamps[item] != request:
            stamps[item] = request
            listed += 1
            for number in range(log.row_starts[item], log.row_starts[item + 1]):
                out.candidate_rows[at] = log.rows[number]
                at += 1
    out.offsets[2, place + 1] = _explore(sizes, key, listed, out, out.offsets[2, place], at)


@kernel
def _explore(sizes: _Sizes, key: np.uint64, listed: int, out: Buffers, start: int, at: int) -> int:
    """Followed rows beyond the log's items, as many as the rest of the candidates brings on average."""
    wanted = sizes.explore_followed - listed * sizes.rows_per_item / float(1 << sizes.row_shift)
    rest = int(wanted + float(key >> _PHASE_BITS) / 65536.0)
    beyond = sizes.table_followed - sizes.rows_followed
    for draw in range(min(rest, beyond)):
        row = sizes.rows_followed + np.int64(((mixed(~key, np.uint64(draw)) >> np.uint64(32)) * np.uint64(beyond)) >> np.uint64(32))
        earlier = at - 1
        while earlier >= start:
            if out.candidate_rows[earlier] == row:
                row = sizes.rows_followed + (row + 1 - sizes.rows_followed) % beyond
                earlier = at
            earlier -= 1
        out.candidate_rows[at] = row
        at += 1
    return at
