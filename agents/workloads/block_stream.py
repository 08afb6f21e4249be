"""Draws a fleet's requests in one kernel: who comes when, with which history, and which candidates.

Nothing that a request carries is stored. The row of a user's p-th event is a pure function of (seed, user, p), and so are
prefix hashes, so that a user costs four numbers and a request costs what it writes. Rows are drawn class by class: a row id
is `index * CLASSES + class`, the class of an event or candidate slot follows from its place, and the index is drawn from a
law that is the same in all classes. A stream sampled by `row_shift` therefore writes exactly those ids of the full stream
that are divisible by `2 ** row_shift`, divided by it, without drawing the others.

Users come as *hot* users (Poisson, equally active, a set that may drift), as *regular* ones (visits of several requests with
log-normal gaps, log-normal revisits in operational time) and as *cold* ones (once). Sums of intensities are inverted, so
arrivals follow the schedule exactly. A stream has a past: it begins `PAST_SECONDS` before its first request with the first
moment's traffic, so that visits are under way and histories are spread over the phases of the sliding window.
"""

from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.numerics.jit import kernel
from agents.workloads.block_buffers import Buffers
from agents.workloads.quantiles import ONE, RANK_ONE, drawn, mixed

CLASS_BITS = 8  # the coarsest sampling: one row in 256
CLASSES = 1 << CLASS_BITS
PAST_SECONDS = 60.0
FOREVER_NS = 1 << 62
NO_USER = -1

_CLASS_MASK = np.int64(CLASSES - 1)
_LOW_24 = np.uint64((1 << 24) - 1)
_ANY_24 = float(1 << 24)
_PHASE = np.uint64(1 << 16)


class Column(IntEnum):
    """Traffic parameters at a grid point."""

    RATE_FACTOR = 0
    HOT_USERS = 1
    TOKENS_LOW = 2
    TOKENS_HIGH = 3
    NEW_TOKENS = 4
    HOT_ROWS = 5  # per class
    HOT_ROW_RATIO = 6
    ROW_OFFSET = 7  # per class
    USER_OFFSET = 8
    GENERATION = 9  # of the model: a flip makes every prefix another one


class Law(IntEnum):
    """Rows of the table of quantile tables."""

    EXPONENTIAL = 0
    GAP = 1  # microseconds
    REVISIT = 2
    RESIDUAL = 3
    ITEM = 4  # ranks of items inside a class
    ROW = 5  # ranks of rows inside a class, smooth streams only
    USER = 6  # ranks of users, smooth streams only


class Arrivals(IntEnum):
    """Columns of the integrated intensities."""

    HOT = 0  # requests
    COLD = 1  # requests
    REGULAR = 2  # seconds at the base rate


class Key(IntEnum):
    """Chance is split by purpose, so that a change in one law leaves the draws of the others alone."""

    HOT = 0
    COLD = 1
    VISITS = 2
    USERS = 3
    HISTORIES = 4
    CANDIDATES = 5
    PREFIXES = 6
    CHOICES = 7
    PAST = 8


class Number(IntEnum):
    """Counters and sizes."""

    HOT_DRAWS = 0
    COLD_DRAWS = 1
    VISIT_DRAWS = 2
    HOT_NS = 3
    COLD_NS = 4
    HOT_POINT = 5  # grid point the last hot arrival lay behind
    COLD_POINT = 6
    BUCKET = 7  # of the time wheel
    READY = 8  # first user of the bucket's sorted list
    COLD_USERS = 9
    REQUESTS = 10
    USERS = 11
    STEP_NS = 12
    BUCKET_NS = 13
    BEGIN_NS = 14
    END_NS = 15
    CANDIDATES = 16
    TOKENS_MAX = 17
    ROWS_PER_CLASS = 18
    ITEM_STRIDE = 19  # rows per class between two items' main rows
    ROW_SHIFT = 20
    BLOCK_TOKENS = 21
    STAY = 22  # chance in 2 ** -24 that a visit goes on
    SMOOTH = 23
    REVISIT_UNIT = 24  # base-rate microseconds of a mean revisit


class StreamState(NamedTuple):
    """All memory of a stream in progress; only this module's kernels write it."""

    moments: NDArray[np.float64]  # [G, Column]
    totals: NDArray[np.float64]  # [G, Arrivals]
    tables: NDArray[np.int64]  # [Law, STEPS + 1]
    keys: NDArray[np.uint64]  # [Key]
    reached: NDArray[np.float64]  # [Arrivals] integrated intensity at the last arrival
    numbers: NDArray[np.int64]  # [Number]
    logs: NDArray[np.int32]  # [U, 2] events written, first event carried; 0 events: not seen yet
    dues: NDArray[np.int64]  # [U] ns of the next request of a visit
    nexts: NDArray[np.int32]  # [U] next user in the same bucket
    heads: NDArray[np.int32]  # [buckets] of the time wheel


@kernel
def begin(state: StreamState) -> None:
    """First arrivals of every kind of user."""
    state.heads[:] = NO_USER
    state.numbers[Number.READY] = NO_USER
    state.numbers[Number.HOT_NS] = _next_poisson(state, Arrivals.HOT)
    state.numbers[Number.COLD_NS] = _next_poisson(state, Arrivals.COLD)
    if state.numbers[Number.SMOOTH] == 0 and state.totals[-1, Arrivals.REGULAR] > 0.0:
        for user in range(state.numbers[Number.USERS]):
            interval = drawn(state.tables[Law.RESIDUAL], _visit_bits(state))
            residual = (interval * np.int64(_visit_bits(state) >> np.uint64(44))) >> 20
            _schedule(state, user, _when(state, residual / ONE * state.numbers[Number.REVISIT_UNIT] / 1e6))


@kernel
def fill(state: StreamState, out: Buffers, room: int) -> int:
    """Write up to `room` requests; fewer only at the stream's end."""
    numbers = state.numbers
    written = 0
    while written < room:
        visitor = _next_visitor(state)
        visit_ns = state.dues[visitor] if visitor != NO_USER else FOREVER_NS
        at_ns = min(numbers[Number.HOT_NS], numbers[Number.COLD_NS], visit_ns)
        if at_ns >= numbers[Number.END_NS]:
            break
        point = int(at_ns // numbers[Number.STEP_NS])
        if at_ns == visit_ns:
            user = _visit(state, visitor, at_ns, point)
        elif at_ns == numbers[Number.HOT_NS]:
            user = _hot_user(state, point)
            numbers[Number.HOT_NS] = _next_poisson(state, Arrivals.HOT)
        else:
            user = numbers[Number.USERS] + numbers[Number.COLD_USERS]
            numbers[Number.COLD_USERS] += 1
            numbers[Number.COLD_NS] = _next_poisson(state, Arrivals.COLD)
        if user == NO_USER:
            continue
        first, last = _carried(state, user, point)
        if at_ns >= numbers[Number.BEGIN_NS]:
            out.at_ns[written] = at_ns - numbers[Number.BEGIN_NS]
            _write(state, out, written, user, first, last, point)
            written += 1
            numbers[Number.REQUESTS] += 1
    return written


@kernel
def draw_recent(state: StreamState, rows: NDArray[np.int64], drawn: NDArray[np.int64], gap: int, count: int, draws: int) -> int:
    """Distinct followed rows in order of their first draw from the first moment's law; returns how many were found.

    Ends when `count` of them were drawn twice within `gap` draws (0: once at all); `drawn` says -1 of these, of the
    others the number of their latest draw.
    """
    found, kept = 0, 0
    for draw in range(draws):
        if kept == count:
            break
        bits = mixed(state.keys[Key.PAST], np.uint64(draw))
        index = _row_index(state, bits, 0)
        kept_class = np.int64(mixed(bits, np.uint64(draw)) >> np.uint64(56)) >> state.numbers[Number.ROW_SHIFT]
        row = index << (CLASS_BITS - state.numbers[Number.ROW_SHIFT]) | kept_class
        before = drawn[row]
        if before == 0:
            rows[found] = row
            found += 1
        if before == -1:
            continue
        drawn[row] = draw + 1
        if gap == 0 or (before > 0 and draw + 1 - before <= gap):
            drawn[row] = -1
            kept += 1
    return found


# --- who comes when -----------------------------------------------------------------------


@kernel
def _next_poisson(state: StreamState, kind: int) -> int:
    """Time of the next arrival of a Poisson stream; the grid is walked forwards only."""
    totals, numbers = state.totals, state.numbers
    bits = mixed(state.keys[kind], np.uint64(numbers[kind]))
    numbers[kind] += 1
    state.reached[kind] += drawn(state.tables[Law.EXPONENTIAL], bits) / ONE
    point = numbers[Number.HOT_POINT + kind]
    while point + 1 < totals.shape[0] and totals[point + 1, kind] < state.reached[kind]:
        point += 1
    numbers[Number.HOT_POINT + kind] = point
    return _between(state, kind, point, state.reached[kind])


@kernel
def _between(state: StreamState, kind: int, point: int, total: float) -> int:
    """When the integral passes `total`, which lies after grid point `point`."""
    if point + 1 >= state.totals.shape[0]:
        return FOREVER_NS
    low, high = state.totals[point, kind], state.totals[point + 1, kind]
    share = (total - low) / (high - low) if high > low else 0.0
    return int((point + share) * state.numbers[Number.STEP_NS])


@kernel
def _when(state: StreamState, total: float) -> int:
    """When the regular users' clock shows `total`."""
    totals = state.totals
    low, high = 0, totals.shape[0]
    while high - low > 1:
        middle = (low + high) >> 1
        if totals[middle, Arrivals.REGULAR] < total:
            low = middle
        else:
            high = middle
    return _between(state, Arrivals.REGULAR, low, total)


@kernel
def _hot_user(state: StreamState, point: int) -> int:
    """One of the hot set, all equally likely; in a smooth stream one of all users by rank."""
    bits = mixed(state.keys[Key.CHOICES], np.uint64(state.numbers[Number.HOT_DRAWS]))
    users = state.numbers[Number.USERS]
    if state.numbers[Number.SMOOTH]:
        return int(min(drawn(state.tables[Law.USER], bits) // RANK_ONE, users - 1))
    place = np.int64(((bits >> np.uint64(32)) * np.uint64(max(1.0, state.moments[point, Column.HOT_USERS]))) >> np.uint64(32))
    return int((np.int64(state.moments[point, Column.USER_OFFSET]) + place) % users)


@kernel
def _visit_bits(state: StreamState) -> np.uint64:
    state.numbers[Number.VISIT_DRAWS] += 1
    return mixed(state.keys[Key.VISITS], np.uint64(state.numbers[Number.VISIT_DRAWS]))


@kernel
def _visit(state: StreamState, user: int, at_ns: int, point: int) -> int:
    """A regular user's request, and when the next one comes; silence ends the visits under way."""
    numbers = state.numbers
    numbers[Number.READY] = state.nexts[user]
    silent = state.moments[point, Column.RATE_FACTOR] <= 0.0
    if not silent and np.int64(_visit_bits(state) & _LOW_24) < numbers[Number.STAY]:
        _schedule(state, user, at_ns + drawn(state.tables[Law.GAP], _visit_bits(state)) * 1000)
    else:
        share = at_ns / numbers[Number.STEP_NS] - point
        low, high = state.totals[point, Arrivals.REGULAR], state.totals[point + 1, Arrivals.REGULAR]
        gap = drawn(state.tables[Law.REVISIT], _visit_bits(state)) / ONE * numbers[Number.REVISIT_UNIT] / 1e6
        _schedule(state, user, _when(state, low + share * (high - low) + gap))
    return NO_USER if silent else user


@kernel
def _schedule(state: StreamState, user: int, at_ns: int) -> None:
    """Put a user's next request into the wheel, at the earliest in the bucket after the present one."""
    if at_ns >= state.numbers[Number.END_NS]:
        return
    bucket = max(at_ns // state.numbers[Number.BUCKET_NS], state.numbers[Number.BUCKET])
    if bucket >= state.heads.shape[0]:
        return
    state.dues[user] = max(at_ns, bucket * state.numbers[Number.BUCKET_NS])
    state.nexts[user] = state.heads[bucket]
    state.heads[bucket] = user


@kernel
def _next_visitor(state: StreamState) -> int:
    """Who of the regular users comes next; BUCKET is the first whose users were not yet put in order."""
    numbers = state.numbers
    while numbers[Number.READY] == NO_USER and numbers[Number.BUCKET] < state.heads.shape[0]:
        numbers[Number.READY] = _in_order(state, state.heads[numbers[Number.BUCKET]])
        numbers[Number.BUCKET] += 1
    return int(numbers[Number.READY])


@kernel
def _in_order(state: StreamState, head: int) -> int:
    """A bucket's list sorted by time, then user: insertion, as the wheel's buckets hold about a dozen."""
    first = NO_USER
    while head != NO_USER:
        user, head = head, state.nexts[head]
        before, after = NO_USER, first
        while after != NO_USER and (state.dues[after] < state.dues[user] or (state.dues[after] == state.dues[user] and after < user)):
            before, after = after, state.nexts[after]
        state.nexts[user] = after
        if before == NO_USER:
            first = user
        else:
            state.nexts[before] = user
    return first


# --- what a request carries ---------------------------------------------------------------


@kernel
def _carried(state: StreamState, user: int, point: int) -> tuple[int, int]:
    """First event and end of the history a request carries; a known user has written some events since the last one."""
    numbers = state.numbers
    place = mixed(state.keys[Key.USERS], ~np.uint64(user))
    low, high = state.moments[point, Column.TOKENS_LOW], state.moments[point, Column.TOKENS_HIGH]
    window = min(np.int64(low + (high - low) * ((place >> np.uint64(40)) / _ANY_24)), numbers[Number.TOKENS_MAX])
    step = max(window // 4, 1)
    if user >= numbers[Number.USERS] or state.logs[user, 0] == 0:
        last = window - np.int64(place % _PHASE) * step // np.int64(_PHASE)
        if user < numbers[Number.USERS]:
            state.logs[user, 0] = last
        return 0, int(last)
    fresh = mixed(place, np.uint64(state.logs[user, 0]))
    written = np.int64(state.moments[point, Column.NEW_TOKENS] * drawn(state.tables[Law.EXPONENTIAL], fresh) / ONE)
    last = np.int64(state.logs[user, 0]) + written
    first = np.int64(state.logs[user, 1])
    over = last - first - window
    if over > 0:
        first += (over + step - 1) // step * step
    state.logs[user, 0], state.logs[user, 1] = last, first
    return int(first), int(last)


@kernel
def _write(state: StreamState, out: Buffers, place: int, user: int, first: int, last: int, point: int) -> None:
    out.user_keys[place] = mixed(state.keys[Key.USERS], np.uint64(user)) | np.uint64(1)
    out.history_tokens[place] = last - first
    _write_blocks(state, out, place, user, first, last, point)
    _write_history(state, out, place, user, first, last)
    _write_candidates(state, out, place, point)


@kernel
def _write_blocks(state: StreamState, out: Buffers, place: int, user: int, first: int, last: int, point: int) -> None:
    """Equal hashes for equal (user, first event, model): events never change once written."""
    generation = np.uint64(state.moments[point, Column.GENERATION])
    prefix = mixed(mixed(state.keys[Key.PREFIXES] + generation, np.uint64(user)), np.uint64(first))
    start = out.offsets[0, place]
    blocks = (last - first) // state.numbers[Number.BLOCK_TOKENS]
    for block in range(blocks):
        out.block_hashes[start + block] = mixed(prefix, np.uint64(block))
    out.offsets[0, place + 1] = start + blocks


@kernel
def _write_history(state: StreamState, out: Buffers, place: int, user: int, first: int, last: int) -> None:
    """Sampled events lie `2 ** shift` apart: those of a user's event p whose class `(p + phase) % CLASSES` is followed."""
    shift, stride = state.numbers[Number.ROW_SHIFT], state.numbers[Number.ITEM_STRIDE]
    user_key = mixed(state.keys[Key.HISTORIES], np.uint64(user))
    phase = np.int64(user_key >> np.uint64(56))
    step = np.int64(1) << shift
    at = out.offsets[1, place]
    event = first + ((-(first + phase)) & (step - 1))
    while event < last:
        rank = drawn(state.tables[Law.ITEM], mixed(user_key, np.uint64(event))) // RANK_ONE
        index = min(rank * stride, state.numbers[Number.ROWS_PER_CLASS] - 1)
        out.history_rows[at] = (index << CLASS_BITS | ((event + phase) & _CLASS_MASK)) >> shift
        at += 1
        event += step
    out.offsets[1, place + 1] = at


@kernel
def _write_candidates(state: StreamState, out: Buffers, place: int, point: int) -> None:
    """Slot j's class is `(j + phase) % CLASSES`; a row drawn twice in its class becomes the next free one."""
    shift = state.numbers[Number.ROW_SHIFT]
    key = mixed(state.keys[Key.CANDIDATES], np.uint64(state.numbers[Number.REQUESTS]))
    phase = np.int64(key >> np.uint64(56))
    step = np.int64(1) << shift
    same_class = np.int64(CLASSES) >> shift  # places in the output between two slots of a class
    rows, start = out.candidate_rows, out.offsets[2, place]
    at = start
    slot = (-phase) & (step - 1)
    while slot < state.numbers[Number.CANDIDATES]:
        index = _row_index(state, mixed(key, np.uint64(slot)), point)
        row = (index << CLASS_BITS | ((slot + phase) & _CLASS_MASK)) >> shift
        while _listed(rows, row, start, at, same_class):
            index = index + 1 if index + 1 < state.numbers[Number.ROWS_PER_CLASS] else 0
            row = (index << CLASS_BITS | ((slot + phase) & _CLASS_MASK)) >> shift
        rows[at] = row
        at += 1
        slot += step
    out.offsets[2, place + 1] = at


@kernel
def _listed(rows: NDArray[np.int64], row: int, start: int, at: int, same_class: int) -> bool:
    """Whether a row stands among the request's earlier rows of its class."""
    earlier = at - same_class
    while earlier >= start:
        if rows[earlier] == row:
            return True
        earlier -= same_class
    return False


@kernel
def _row_index(state: StreamState, bits: np.uint64, point: int) -> int:
    """A row's index in its class: of the hot set or of the tail; in a smooth stream by rank."""
    rows = state.numbers[Number.ROWS_PER_CLASS]
    offset = np.int64(state.moments[point, Column.ROW_OFFSET])
    if state.numbers[Number.SMOOTH]:
        return int((drawn(state.tables[Law.ROW], bits) // RANK_ONE + offset) % rows)
    hot = min(max(np.int64(state.moments[point, Column.HOT_ROWS]), 1), rows - 1)
    share = bits >> np.uint64(24)  # 40 bits
    if (bits & _LOW_24) / _ANY_24 < state.moments[point, Column.HOT_ROW_RATIO]:
        index = np.int64((share * np.uint64(hot)) >> np.uint64(40))
    else:
        index = hot + np.int64((share * np.uint64(rows - hot)) >> np.uint64(40))
    return int((index + offset) % rows)
