"""Replays a log of events as requests. Every rule that adds to the log is stated here and printed as a note.

- Events of one user within a few seconds are one request; they join the user's history after it.
- Coarse timestamps (a day, an hour) are spread inside their step: a user's events of one step are one visit.
- Items become table rows, densely renumbered where they fit, by a keyed hash where they do not.
- Histories are lengthened by a past before the log, drawn from the log's own popularity or the user's own events, or not at all.
- Candidates are what the user took next, items popular in the log near that time, and a share of the whole table.
- Time is compressed by `speed`, or stretch by stretch to a mean rate, or users are cloned to reach a rate at a speed.
"""

import hashlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from agents.profiles import Profile
from agents.workloads.generators import NS_PER_SECOND, UserLog, draw_actions, stream_of
from agents.workloads.request import Request
from agents.workloads.trace import Columns, Log, TraceError, read_log
from agents.workloads.trace_file import RequestTable, TraceHeader, read_header, read_table, write_table

RATE_DEFAULT = 40.0  # requests/s of a trace played without a speed: what two cores serve with room to spare
EVENTS_PER_REQUEST_MAX = 64  # a longer run of events is several requests; also the cap of a history block


HistoryRule = Literal["popular", "own", "short"]
HISTORY_RULES: dict[HistoryRule, str] = {
    "popular": "histories lengthened by a past drawn from the log's own popularity",
    "own": "histories lengthened by repeating the user's own events of the log",
    "short": "histories not lengthened: they begin with one event and grow as the log goes on",
}


class ReplayRules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a log becomes requests. Sizes come from the profile that serves them."""

    rows: int
    candidates: int
    tokens_max: int
    actions: int
    history_tokens_min: int = 256
    fold_seconds: float = 5.0  # KuaiRand: 5.8 items come with one request; a short video rarely holds longer
    coarse_seconds: int = 60  # a clock step of this or more is spread
    near_events: int = 5_000  # candidates are drawn from as many events before and after the request
    explore_ratio: float = 0.2  # candidates from the whole table: a catalogue is larger than any log of it
    users_remembered: int = 8_192  # full logs kept, about 13 KB each; a user beyond them returns with another past
    stretch_requests: int = 200  # with a rate and no speed, so many at a time are played at that mean rate: 5 s at 40/s
    items: str = "auto"  # auto | dense | hash
    history: HistoryRule = "popular"
    salt: str = "68656c6d"  # hex; keys the item hash

    def __post_init__(self) -> None:
        """Refuse rules that cannot be followed, naming the field."""
        if self.items not in ("auto", "dense", "hash"):
            raise ValueError(f"items: unknown {self.items!r}, choose one of auto, dense, hash")
        if self.history not in HISTORY_RULES:
            raise ValueError(f"history: unknown {self.history!r}, choose one of {', '.join(HISTORY_RULES)}")
        if not 0.0 <= self.explore_ratio <= 1.0:
            raise ValueError("explore_ratio must be in [0, 1]")
        if not 4 <= self.history_tokens_min <= self.tokens_max:
            raise ValueError("history_tokens_min must be >= 4 and at most tokens_max")
        if min(self.candidates, self.actions, self.near_events, self.stretch_requests) < 1 or self.rows < 2 * self.candidates:
            raise ValueError("candidates, actions, near_events, stretch_requests must be >= 1, rows at least twice candidates")
        if self.fold_seconds < 0 or self.coarse_seconds < 1:
            raise ValueError("fold_seconds must be >= 0 and coarse_seconds >= 1")

    @classmethod
    def for_profile(cls, profile: Profile) -> "ReplayRules":
        """Rules with a profile's sizes."""
        tokens_max = profile.model.tokens_max
        return cls(
            rows=profile.rows,
            candidates=profile.candidates,
            tokens_max=tokens_max,
            actions=profile.model.actions,
            history_tokens_min=max(4, tokens_max // 3),
        )


class Pace(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How log time becomes stream time.

    Neither: stretch by stretch at the default rate. `rate_per_second`: the same at that mean rate. `speed`: log
    seconds per stream second throughout. Both: that speed, and users cloned until the mean rate is reached.
    """

    speed: float | None = None
    rate_per_second: float | None = None

    def __post_init__(self) -> None:
        """Refuse paces that stand still."""
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be a finite number > 0")


CLONED_REQUESTS_MAX = 4_000_000  # bounds memory (24 bytes each); a log so thin cannot stand for the rate asked


class Timeline(NamedTuple):
    """R requests in order of stream time, clones included."""

    source: NDArray[np.int64]  # [R] place in the table
    users: NDArray[np.int64]  # [R] 0..user_count-1
    at_ns: NDArray[np.int64]  # [R]
    user_count: int


class TraceWorkload:
    """A log as a workload: the same file, rules and seed give the same requests, byte for byte."""

    def __init__(self, name: str, table: RequestTable, rules: ReplayRules, pace: Pace, seed: int, loop: bool = False) -> None:
        self.name = name
        self.notes: list[str] = []
        self._rules = rules
        self._seed = seed
        keys, users = np.unique(table.users, return_inverse=True)
        self._user_count = int(keys.shape[0])
        self._items, self._offsets = table.items, table.offsets
        self._begin_ns = int(table.ts_ns[0])
        self._clones = 1
        log_seconds = (table.ts_ns - self._begin_ns) / NS_PER_SECOND
        self._source = np.arange(users.shape[0], dtype=np.int64)  # request -> its place in the table
        self._users = users.astype(np.int64)
        self._own_user = self._users  # before cloning: user of each request in the table
        self._log_seconds = log_seconds
        self._stream_seconds = self._paced(log_seconds, pace)
        self._cycle_seconds = self._cycle()
        self.duration_seconds = math.inf if loop else self._cycle_seconds
        self.notes.append(
            f"{self._source.shape[0]} requests by {self._user_count * self._clones} users, "
            f"{self._source.shape[0] / self._cycle_seconds:.1f}/s over {self._cycle_seconds:.0f} s"
        )

    def timeline(self) -> Timeline:
        """Who plays which request of the table when, for replays that do not draw single requests."""
        return Timeline(
            self._source, self._users, np.round(self._stream_seconds * NS_PER_SECOND).astype(np.int64), self._user_count * self._clones
        )

    def requests(self) -> Iterator[Request]:
        """Requests in order of `at_ns`, from the beginning; each call starts anew with the same bytes."""
        logs: dict[int, UserLog] = {}
        chance = stream_of(self._seed, 0)
        log_span = math.ceil(float(self._log_seconds.max())) + 1
        cycle = 0
        while cycle * self._cycle_seconds < self.duration_seconds:
            for place in range(self._source.shape[0]):
                yield self._request(place, cycle, log_span, logs, chance)
            cycle += 1

    def _request(self, place: int, cycle: int, log_span: int, logs: dict[int, UserLog], chance: np.random.Generator) -> Request:
        user, source = int(self._users[place]), int(self._source[place])
        unix = self._begin_ns // NS_PER_SECOND + int(self._log_seconds[place]) + cycle * log_span
        first, end = int(self._offsets[source]), int(self._offsets[source + 1])
        taken = self._items[first:end]
        log = logs.pop(user, None) or self._past(user, unix)
        logs[user] = log  # last in the dictionary is last seen
        if len(logs) > self._rules.users_remembered:
            del logs[next(iter(logs))]
        at_seconds = float(self._stream_seconds[place]) + cycle * self._cycle_seconds
        fresh = unix - log.seen_seconds > 1800
        items, actions, timestamps = log.window(self._window_tokens(user), fresh)
        candidates = self._candidates(taken, first, chance)
        log.seen_seconds = unix
        if taken.size:
            begin = max(unix, log.last_timestamp)
            stamps = begin + np.arange(taken.size, dtype=np.int64)
            log.append(taken, draw_actions(chance, taken.size, self._rules.actions), stamps)
        return Request(round(at_seconds * NS_PER_SECOND), user, items, actions, timestamps, candidates)

    def _past(self, user: int, unix: int) -> UserLog:
        """Events before the log, a minute to hours apart: as many as a request can carry, unless the rule keeps histories short."""
        rules, chance = self._rules, stream_of(self._seed, 1, user)
        count = 1 if rules.history == "short" else rules.tokens_max
        items = self._own_items(user) if rules.history == "own" else self._items
        past = items[chance.integers(0, items.shape[0], count)] if items.size else np.zeros(count, np.int64)
        gaps = np.maximum(1, np.minimum(chance.lognormal(4.26, 1.49, count), 1800.0).astype(np.int64))
        total = count + (int(chance.integers(0, count)) if count > 1 else 0)
        stamps = np.maximum(0, unix - np.cumsum(gaps)[::-1])
        return UserLog(past, draw_actions(chance, count, rules.actions), stamps, total, keep=rules.tokens_max)

    def _own_items(self, user: int) -> NDArray[np.int64]:
        """All of a user's events in the log; clones share them."""
        own = np.flatnonzero(self._own_user == user % self._user_count)
        return np.concatenate([self._items[self._offsets[place] : self._offsets[place + 1]] for place in own])

    def _window_tokens(self, user: int) -> int:
        """A user's window for life, so that a history (3/4 to 1 of it) lies between the least and the most tokens."""
        low = min(self._rules.tokens_max, -(-self._rules.history_tokens_min * 4 // 3) + 4)
        place = ((user + 1) * 0x9E3779B97F4A7C15) % 2**64 / 2**64
        return low + int(place * (self._rules.tokens_max - low + 1))

    def _candidates(self, taken: NDArray[np.int64], event: int, chance: np.random.Generator) -> NDArray[np.int64]:
        """What is taken next first, then near popularity, then the table; distinct, in random order."""
        rules = self._rules
        near = max(0, rules.candidates - round(rules.candidates * rules.explore_ratio))
        low, high = max(0, event - rules.near_events), min(self._items.shape[0], event + rules.near_events)
        drawn = self._items[chance.integers(low, high, 2 * near)] if high > low else self._items[:0]
        rows = _first_distinct(np.concatenate((taken, drawn)), max(near, min(taken.size, rules.candidates)))
        while rows.shape[0] < rules.candidates:
            more = chance.integers(0, rules.rows, rules.candidates - rows.shape[0])
            rows = _first_distinct(np.concatenate((rows, more)), rules.candidates)
        chance.shuffle(rows)
        return rows

    def _paced(self, log_seconds: NDArray[np.float64], pace: Pace) -> NDArray[np.float64]:
        if pace.speed is None:
            return self._stretched(log_seconds, pace.rate_per_second or RATE_DEFAULT)
        if pace.rate_per_second is not None:
            span = max(float(log_seconds[-1]), 1.0)
            self._clone(span, round(pace.rate_per_second * span / pace.speed / log_seconds.shape[0]))
        self.notes.append(f"speed {pace.speed:g}: {pace.speed:g} log seconds in one second")
        paced: NDArray[np.float64] = self._log_seconds / pace.speed
        return paced

    def _stretched(self, log_seconds: NDArray[np.float64], rate: float) -> NDArray[np.float64]:
        """Each stretch of requests takes `requests / rate` seconds; inside it gaps keep their proportions."""
        count = log_seconds.shape[0]
        knots = np.unique(np.append(np.arange(0, count, self._rules.stretch_requests), count - 1))
        marks = knots / rate
        times = log_seconds[knots]
        rising = np.concatenate(([True], np.diff(times) > 0))  # equal times would make the map ambiguous
        speeds = np.diff(times[rising]) / np.diff(marks[rising])
        if speeds.size == 0:
            return np.arange(count) / rate  # the whole log has one timestamp
        self.notes.append(
            f"speed follows the log: every {self._rules.stretch_requests} requests at {rate:g}/s "
            f"({speeds.min():.3g} to {speeds.max():.3g} log seconds in one second)"
        )
        return np.interp(log_seconds, times[rising], marks[rising])

    def _clone(self, span: float, clones: int) -> None:
        """Copies of every user, each playing the log from another beginning (rotated in time)."""
        clones = max(1, min(clones, CLONED_REQUESTS_MAX // self._users.shape[0]))
        self._clones = clones
        shifts = np.arange(clones) / clones * span
        seconds = (self._log_seconds[None, :] + shifts[:, None]) % span
        users = self._users[None, :] + np.arange(clones)[:, None] * self._user_count
        source = np.broadcast_to(self._source, seconds.shape)
        order = np.argsort(seconds, axis=None, kind="stable")
        self._log_seconds, self._users, self._source = seconds.ravel()[order], users.ravel()[order], source.ravel()[order]
        if clones > 1:
            self.notes.append(f"every user cloned {clones} times, each copy begins elsewhere in the log")

    def _cycle(self) -> float:
        """Stream seconds until the log begins again: its span and one mean gap."""
        span, count = float(self._stream_seconds[-1]), int(self._stream_seconds.shape[0])
        return span + span / count + 1e-3


def open_trace(
    path: Path, rules: ReplayRules, pace: Pace, seed: int, columns: Columns | None = None, loop: bool = False, *, sort: bool = True
) -> tuple[TraceWorkload, list[str]]:
    """A workload from any supported file, and the notes on everything that was done to it. Without `sort`, disorder is refused."""
    table, notes = load_requests(path, rules, seed, columns, sort=sort)
    if (header := read_header(path)) is not None:
        rules = msgspec.structs.replace(rules, history=header.history_rule)  # as it was imported
    workload = TraceWorkload(path.stem, table, rules, pace, seed, loop)
    return workload, [*notes, *workload.notes]


def import_trace(
    source: Path, target: Path, rules: ReplayRules, seed: int, columns: Columns | None = None, *, sort: bool = False
) -> list[str]:
    """Rewrite a log as a trace of ours; users become keyed hashes. Returns the notes."""
    table, notes = load_requests(source, rules, seed, columns, sort=sort)
    mapping = next((note for note in notes if note.startswith("items")), "items unchanged")
    header = TraceHeader(salt=rules.salt, rows=rules.rows, items_mapping=mapping, source=source.name, history_rule=rules.history)
    write_table(target, header, table)
    return [*notes, HISTORY_RULES[rules.history], f"wrote {table.ts_ns.shape[0]} requests to {target}"]


def load_requests(
    path: Path, rules: ReplayRules, seed: int, columns: Columns | None = None, *, sort: bool = False
) -> tuple[RequestTable, list[str]]:
    """Requests of a file: a trace of ours as it stands, any other log folded into requests; rows out of order need `sort`."""
    header = read_header(path)
    if header is None:
        log = read_log(path, columns, sort=sort)
        rows, mapping = rows_of(log, rules)
        table, folding = fold(log, rows, rules, seed)
        return table, [*log.notes, mapping, *folding]
    if header.rows > rules.rows:
        raise TraceError(f"{path}: items of a table of {header.rows} rows, the profile has {rules.rows}")
    notes = [f"trace of {header.source}: sampling {header.sampling_ratio:g}, clone factor {header.clone_factor}, {header.items_mapping}"]
    return read_table(path), notes


def rows_of(log: Log, rules: ReplayRules) -> tuple[NDArray[np.int64], str]:
    """Table row of every distinct item, and the note that says how."""
    count = int(log.item_ids.shape[0])
    if rules.items == "dense" and count > rules.rows:
        raise TraceError(f"items: {count} distinct items do not fit {rules.rows} rows densely")
    if rules.items != "hash" and count <= rules.rows:
        return np.arange(count, dtype=np.int64), f"items renumbered densely: {count} items onto rows 0..{count - 1} of {rules.rows}"
    salt = bytes.fromhex(rules.salt)
    rows = np.array([_keyed_row(item, salt, rules.rows) for item in log.item_ids.tolist()], dtype=np.int64)
    shared = count - int(np.unique(rows).shape[0])
    return rows, f"items mapped by keyed hash: {count} items onto {rules.rows} rows, {shared} share a row with another"


def _keyed_row(item: object, salt: bytes, rows: int) -> int:
    """Stable in item and salt: the same item of two logs is the same row."""
    return int.from_bytes(hashlib.blake2b(str(item).encode(), digest_size=8, key=salt).digest(), "little") % rows


def fold(log: Log, rows: NDArray[np.int64], rules: ReplayRules, seed: int) -> tuple[RequestTable, list[str]]:
    """Events of one user within `fold_seconds` of each other become one request at the first one's time."""
    ts_ns, notes = _spread(log, rules, seed)
    order = np.lexsort((np.arange(ts_ns.shape[0]), ts_ns, log.users))
    users, times, items = log.users[order], ts_ns[order], rows[log.items[order]]
    first = np.ones(users.shape[0], dtype=bool)
    first[1:] = (np.diff(users) != 0) | (np.diff(times) > round(rules.fold_seconds * NS_PER_SECOND))
    starts = np.flatnonzero(first)
    run = np.arange(users.shape[0]) - np.repeat(starts, np.diff(np.append(starts, users.shape[0])))
    starts = np.flatnonzero(first | (run % EVENTS_PER_REQUEST_MAX == 0))
    lengths = np.diff(np.append(starts, users.shape[0]))
    by_time = np.lexsort((users[starts], times[starts]))
    offsets = np.concatenate(([0], np.cumsum(lengths[by_time]))).astype(np.int64)
    place = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths[by_time]) + np.repeat(starts[by_time], lengths[by_time])
    keys = _user_keys(log.user_count, bytes.fromhex(rules.salt))
    notes.append(f"{users.shape[0]} events folded into {starts.shape[0]} requests (gap up to {rules.fold_seconds:g} s)")
    return RequestTable(times[starts][by_time], keys[users[starts][by_time]], items[place], offsets), notes


def _user_keys(count: int, salt: bytes) -> NDArray[np.uint64]:
    """64-bit keys: raw ids are never stored."""
    digests = (hashlib.blake2b(str(user).encode(), digest_size=8, key=salt).digest() for user in range(count))
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def _spread(log: Log, rules: ReplayRules, seed: int) -> tuple[NDArray[np.int64], list[str]]:
    """Times inside a coarse clock's step; a user's events of one step are one visit with KuaiRand's gaps."""
    step_ns = int(np.gcd.reduce(log.ts_ns - log.ts_ns[0])) if log.ts_ns.shape[0] > 1 else 0
    if step_ns < rules.coarse_seconds * NS_PER_SECOND:
        return log.ts_ns, []
    chance = stream_of(seed, 2)
    order = np.lexsort((log.ts_ns, log.users))
    users, steps = log.users[order], log.ts_ns[order]
    first = np.ones(users.shape[0], dtype=bool)
    first[1:] = (np.diff(users) != 0) | (np.diff(steps) != 0)
    starts = np.flatnonzero(first)
    lengths = np.diff(np.append(starts, users.shape[0]))
    gaps = np.minimum(chance.lognormal(4.26, 1.49, users.shape[0]), 1800.0)
    gaps[starts] = 0.0
    total = np.cumsum(gaps)
    inside = total - np.repeat(total[starts], lengths)
    longest = np.repeat(inside[np.append(starts[1:], users.shape[0]) - 1], lengths)
    step_seconds = step_ns / NS_PER_SECOND
    squeeze = np.minimum(1.0, 0.9 * step_seconds / np.maximum(longest, 1e-9))  # a visit stays inside its step
    begin = np.repeat(chance.random(starts.shape[0]), lengths) * (step_seconds - longest * squeeze)
    result = np.empty_like(log.ts_ns)
    result[order] = steps + ((begin + inside * squeeze) * (NS_PER_SECOND - 1)).astype(np.int64)
    return result, [f"clock of the log steps by {step_seconds:g} s: events spread inside each step, a user's as one visit"]


def _first_distinct(rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """The first `count` distinct values, in their order."""
    _, first = np.unique(rows, return_index=True)
    return rows[np.sort(first)[:count]]
