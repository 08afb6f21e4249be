"""B10: no partition, as near as two caches behind one ratio come to it.

The method it stands for has one pool of pages: whoever needs a page takes the cheapest of all, whichever cache it serves.
Cheapest means the lowest value density, milliseconds saved per second and byte, compared among 16 residents drawn from
either side (FASTLIBRA and Memshare are of this kind). Residents are compared here too, and no curve is looked at:

    KV prefix   decayed requests of its user (half-life 300 s) x milliseconds a hit saves / its bytes
    EMB page    its rows' rate of reuse x milliseconds a found row saves / its bytes
    both        less what the floor of GreedyDual-Size-Frequency has risen by since its last use
    a page goes over only if the donor's cheapest is 10 % cheaper than the receiver's own; floors are reservations

What differs from page by page:

- *Once a second instead of at every page.* Pages that each cache had to free in that second are counted, eight drawings say which
  share of them the other side would have given more cheaply, and the ratio moves by the difference, at the actuator's rate.
- *The receiver's victim is already gone.* Each cache evicts by its own rule (the admission's); what is compared are those who are left.
- *Rows have no counts*, only the clock's use bits. A page's rate of reuse is what makes its share of used rows likely after the
  time since the hand came by. More than one use in that time is not seen, so hot pages are undervalued; the cheapest are not hot.
- *Pages of EMB are drawn from the quarter that the hand reaches next*, the oldest, because only those are ever given up.
"""

import math
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.caches.kv import hash_position
from agents.controller.interface import Observation, Proposal
from agents.numerics.cost import Cost, kv_hit_value_ms, row_hit_value_ms
from agents.numerics.jit import kernel
from agents.pool.state import Counter, PoolState
from agents.wire.messages import GuardRails

HALF_LIFE_SECONDS = 300.0  # of a user's count of requests
CANDIDATES = 16
DRAWINGS = 8
STICKINESS = 0.1
FLOORS_KEPT = 512  # of the ageing, one a second: older uses count as that old
_SLOTS_PER_PAGE = 32  # looked at of an EMB page
_HAND_MEMORY = 0.9  # of the hand's speed, per second
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class Residents(NamedTuple):
    """What a node lets a method see that compares residents instead of curves; it may only read."""

    state: PoolState
    rows_per_page: int  # followed ones, where rows are sampled
    rows_per_followed_row: float
    block_tokens: int
    page_bytes: int
    cost: Callable[[], Cost]  # as the node believes it now


class B10:
    """Compares residents. Without a node that shows them it holds."""

    name = "b10"
    period_ns = 1_000_000_000
    uses_cluster_reuse = False

    def __init__(self, rails: GuardRails) -> None:
        self._rails = rails
        self._residents: Residents | None = None
        self._before: NDArray[np.int64] | None = None
        self._pages_per_second = 0.0  # of the clock hand
        self._floor = _Floor()
        self._drawn = 0
        self._wish: float | None = None

    def show(self, residents: Residents) -> None:
        """Called by the node, again whenever its memory has moved."""
        self._residents = residents

    def set_rails(self, rails: GuardRails) -> None:
        """New reservations."""
        self._rails = rails

    def propose(self, observation: Observation) -> Proposal:
        """The ratio after this second's pages went where they were worth more."""
        present = observation.emb_ratio
        if self._residents is None:
            return Proposal(present, "no_residents", {})
        counters = self._residents.state.counters.copy()
        before, self._before = self._before, counters
        if before is None or counters[Counter.EMB_PAGES] < 1 or counters[Counter.ENTRIES_LIVE] < 1:
            return Proposal(present, "no_residents", {})
        self._follow_hand(before, counters)
        kv_pages, emb_pages = self._freed(before, counters)
        from_emb, from_kv = self._drawings(observation)
        net_pages = from_kv * emb_pages - from_emb * kv_pages
        step = net_pages / int(counters[Counter.POOL_PAGES])
        most = observation.move_ratio_per_second * self.period_ns / 1e9
        wish = self._wished(present) + min(max(step, -most), most)
        self._wish = min(max(wish, self._rails.emb_ratio_min), self._rails.emb_ratio_max)
        layers = {"kv_pages": kv_pages, "emb_pages": emb_pages, "from_emb": from_emb, "from_kv": from_kv}
        return Proposal(self._wish, "residents", layers | {"fragmentation": fragmentation(self._residents)})

    def _wished(self, present: float) -> float:
        """Where this method wants to be: steps finer than the guard's dead-band add up. Elsewhere by far, somebody moved the node."""
        return present if self._wish is None or abs(self._wish - present) > 0.1 else self._wish

    # --- demand ---------------------------------------------------------------------------

    def _follow_hand(self, before: NDArray[np.int64], now: NDArray[np.int64]) -> None:
        pages = max(1, int(now[Counter.EMB_PAGES]))
        moved = (int(now[Counter.CLOCK_PAGE]) - int(before[Counter.CLOCK_PAGE])) % pages
        self._pages_per_second = _HAND_MEMORY * self._pages_per_second + (1.0 - _HAND_MEMORY) * moved

    def _freed(self, before: NDArray[np.int64], now: NDArray[np.int64]) -> tuple[float, float]:
        """Pages that KV and EMB had to take from their own residents since the last decision."""
        assert self._residents is not None
        gained = now - before
        blocks = now[Counter.KV_PAGES_USED] / max(1, int(now[Counter.ENTRIES_LIVE]))
        kv_pages = float(gained[Counter.KV_EVICTED_PRESSURE] * blocks)
        return kv_pages, float(gained[Counter.EMB_EVICTED_PRESSURE] / self._residents.rows_per_page)

    # --- who is cheaper -------------------------------------------------------------------

    def _drawings(self, observation: Observation) -> tuple[float, float]:
        """Shares of the drawings in which EMB's cheapest is cheaper than KV's by more than the stickiness, and the reverse."""
        kv_cheapest = self._floor.aged(self._kv_densities(observation)).min(axis=1)
        emb_cheapest = self._floor.aged(self._emb_densities(observation)).min(axis=1)
        self._floor.rise(observation.now_ns, float(np.minimum(kv_cheapest, emb_cheapest).mean()))
        keep = 1.0 - STICKINESS
        return float((emb_cheapest < keep * kv_cheapest).mean()), float((kv_cheapest < keep * emb_cheapest).mean())

    def _draw(self, among: int) -> NDArray[np.int64]:
        """[DRAWINGS, CANDIDATES] places below `among`; the same for the same number of draws so far."""
        numbers = np.arange(self._drawn, self._drawn + DRAWINGS * CANDIDATES, dtype=np.uint64)
        self._drawn += numbers.shape[0]
        mixed = (numbers + np.uint64(1)) * _GOLDEN
        mixed ^= mixed >> np.uint64(29)
        return ((mixed * _GOLDEN) >> np.uint64(33)).astype(np.int64).reshape(DRAWINGS, CANDIDATES) % among

    def _kv_densities(self, observation: Observation) -> "_Drawn":
        assert self._residents is not None
        state, cost = self._residents.state, self._residents.cost()
        live = int(state.counters[Counter.ENTRIES_LIVE])
        entries = state.entries[state.lists["entry"][:live][self._draw(live)]]
        blocks = np.maximum(entries["blocks"], 1)
        tokens = blocks * float(self._residents.block_tokens)
        saved_ms = np.empty(tokens.shape)
        _hit_values(cost, tokens, observation.emb_hit_ratio, saved_ms)
        density = self._requests_per_second(entries, observation.now_ns) * saved_ms / (blocks * self._residents.page_bytes)
        return _Drawn(density, entries["last_ns"])

    def _requests_per_second(self, entries: NDArray[np.void], now_ns: int) -> NDArray[np.float64]:
        """Of the entries' users: a count that halves every half-life is the rate times half-life / ln 2."""
        assert self._residents is not None
        fates = self._residents.state.fates
        places = np.empty(entries.shape, np.int64)
        _home_places(entries, fates.shape[0] - 1, places)
        known = fates[places]
        halvings = np.maximum(0, now_ns - known["seen_ns"]) / 1e9 / HALF_LIFE_SECONDS
        counts = np.where(known["key"] == entries["key"], np.maximum(known["requests"], 1.0), 1.0) * 0.5**halvings
        return np.asarray(counts * math.log(2.0) / HALF_LIFE_SECONDS)

    def _emb_densities(self, observation: Observation) -> "_Drawn":
        assert self._residents is not None
        state, per_page = self._residents.state, self._residents.rows_per_page
        pages, hand = int(state.counters[Counter.EMB_PAGES]), int(state.counters[Counter.CLOCK_PAGE])
        drawn = state.lists["emb_page"][(hand + self._draw(max(1, pages // 4))) % pages]
        offsets = np.linspace(0, per_page - 1, min(per_page, _SLOTS_PER_PAGE)).astype(np.int64)
        slots = state.slots[drawn[..., None].astype(np.int64) * per_page + offsets]
        resident = slots["row"] >= 0
        used = ((slots["uses"] > 0) & resident).sum(axis=2)
        since_seconds = min(HALF_LIFE_SECONDS, 0.875 * pages / max(self._pages_per_second, 1e-9))
        idle_ratio = np.maximum(1.0 - used / offsets.shape[0], 0.5 / offsets.shape[0])
        rows = per_page * self._residents.rows_per_followed_row
        worth = row_hit_value_ms(self._residents.cost()) * rows / self._residents.page_bytes
        density = -np.log(idle_ratio) / since_seconds * worth
        last_ns = np.where(used > 0, observation.now_ns, observation.now_ns - round(since_seconds * 1e9))
        return _Drawn(density, last_ns)


@kernel
def _hit_values(cost: Cost, tokens: NDArray[np.float64], emb_hit_ratio: float, saved_ms: NDArray[np.float64]) -> None:
    """Milliseconds that a hit on the whole prefix saves, into `saved_ms`; both [DRAWINGS, CANDIDATES]."""
    for drawing in range(tokens.shape[0]):
        for candidate in range(tokens.shape[1]):
            held = tokens[drawing, candidate]
            saved_ms[drawing, candidate] = kv_hit_value_ms(cost, held, held, emb_hit_ratio)


@kernel
def _home_places(entries: NDArray[np.void], mask: int, places: NDArray[np.int64]) -> None:
    """Where the entries' users are looked for, into `places`; both [DRAWINGS, CANDIDATES]."""
    for drawing in range(entries.shape[0]):
        for candidate in range(entries.shape[1]):
            places[drawing, candidate] = hash_position(entries[drawing, candidate].key, mask)


class _Drawn(NamedTuple):
    """[DRAWINGS, CANDIDATES] each: value density, and when the candidate was last used."""

    density: NDArray[np.float64]
    last_ns: NDArray[np.int64]


class _Floor:
    """GreedyDual's floor, one for both caches: it rises by what was given up, and who was used lately stands on the higher one."""

    def __init__(self) -> None:
        self._at_ns: deque[int] = deque(maxlen=FLOORS_KEPT)
        self._levels: deque[float] = deque(maxlen=FLOORS_KEPT)

    def aged(self, drawn: _Drawn) -> NDArray[np.float64]:
        """Densities less what the floor has risen by since the candidate's last use."""
        if not self._levels:
            return drawn.density
        times, levels = np.array(self._at_ns), np.array(self._levels)
        places = np.clip(np.searchsorted(times, drawn.last_ns, side="right") - 1, 0, None)
        return np.asarray(np.maximum(drawn.density - (levels[-1] - levels[places]), 0.0))

    def rise(self, now_ns: int, cheapest: float) -> None:
        """The cheapest was given up: in a half-life the floor rises by what that is worth."""
        level = self._levels[-1] if self._levels else 0.0
        seconds = (now_ns - self._at_ns[-1]) / 1e9 if self._at_ns else 0.0
        self._at_ns.append(now_ns)
        self._levels.append(level + cheapest * seconds / HALF_LIFE_SECONDS)


def fragmentation(residents: Residents) -> float:
    """Share of the granted pages that holds nothing: KV's unused pages and EMB's empty slots."""
    counters = residents.state.counters
    unused = float(counters[Counter.KV_FREE_PAGES])
    empty = float(counters[Counter.EMB_PAGES]) - float(counters[Counter.EMB_ROWS]) / residents.rows_per_page
    return (unused + empty) / max(1.0, float(counters[Counter.POOL_PAGES]))
