"""A day of coming and going, played to one router under a virtual clock.

Pretended nodes hold real recency lists of users and tell of them by the residency protocol: deltas that arrive late,
deltas that are lost, ranges and snapshots that repair. They restart, drain, join late and change their model. Users
come for a while and never again. Answers fail, and some never come. Nothing here is measured by a clock.
"""

from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from agents.router.router import Router, RouterConfig
from agents.wire.messages import Phase, ResidencyDelta, ResidencySnapshot
from tests.agents.router.nodes import MS, SECOND, load

NODES = 6
USERS_HELD = 150  # by a node
USERS_AROUND = 400  # at a time
LOG_KEPT = 64  # changes a node can still tell as a range
DELIVERY_NS = 20 * MS
REPORT_NS = SECOND
SERVICE_NS = 15 * MS
AWAY_SECONDS = 40.0
BOUNDS = RouterConfig(users_max=2_048, copies_max=2_048, reservations_max=256, ring=16, memory_ns=900 * SECOND)
# events per request
NEW_USER, LOST_DELTA, LOST_ANSWER, FAILED_ANSWER, RESTART, DRAIN, FLIP = 0.05, 0.004, 0.001, 0.002, 0.001, 0.001, 0.0002


class Change(NamedTuple):
    """A user's prefix on a node from one moment on."""

    user: int
    tokens: int


class PretendedNode:
    """A recency list of users, and the log that tells of it."""

    def __init__(self) -> None:
        self.version = "1"
        self.phase = Phase.OFFLINE
        self.back_ns = 0  # when it is ready again
        self.restart()

    def restart(self) -> None:
        """A new life: nothing held, sequence numbers from the beginning."""
        self.held: OrderedDict[int, int] = OrderedDict()
        self.log: deque[Change] = deque(maxlen=LOG_KEPT)
        self.sequence = 0
        self.on_its_way: deque[tuple[int, ResidencyDelta]] = deque()

    def serve(self, now_ns: int, user: int, tokens: int, lost: bool) -> None:
        """Hold the user's prefix; whoever was not here for longest goes."""
        self.held[user] = tokens
        self.held.move_to_end(user)
        changes = [Change(user, tokens)]
        if len(self.held) > USERS_HELD:
            changes.append(Change(self.held.popitem(last=False)[0], 0))
        self._tell(now_ns, changes, lost)

    def flip(self) -> None:
        """Another model: what was held is worth nothing, and the log begins anew."""
        self.version = str(int(self.version) + 1)
        self.held.clear()
        self.log.clear()
        self.on_its_way.clear()

    def _tell(self, now_ns: int, changes: list[Change], lost: bool) -> None:
        first = self.sequence + 1
        self.sequence += len(changes)
        self.log.extend(changes)
        if not lost:
            delta = ResidencyDelta(
                seq_first=first,
                seq=self.sequence,
                user_keys=[change.user for change in changes],
                cached_tokens=[change.tokens for change in changes],
            )
            self.on_its_way.append((now_ns + DELIVERY_NS, delta))

    def since(self, sequence: int) -> ResidencySnapshot | ResidencyDelta:
        """The missing range if the log still has it, else everything."""
        missing = self.sequence - sequence
        if sequence < 0 or missing > len(self.log):
            return ResidencySnapshot(seq=self.sequence, user_keys=list(self.held), cached_tokens=list(self.held.values()))
        changes = list(self.log)[len(self.log) - missing :]
        return ResidencyDelta(
            seq_first=sequence + 1,
            seq=self.sequence,
            user_keys=[change.user for change in changes],
            cached_tokens=[change.tokens for change in changes],
        )


class InFlight(NamedTuple):
    """A request that a node works on."""

    end_ns: int
    node: int
    user: int
    tokens: int
    reservation: int
    predicted_ms: float


class Day:
    """One router, its nodes, and what went on so far."""

    def __init__(self, seed: int, requests_per_second: float) -> None:
        self.router = Router([f"node-{index}" for index in range(NODES)], BOUNDS, seed)
        self.nodes = [PretendedNode() for _ in range(NODES)]
        self.nodes[-1].back_ns = 600 * SECOND  # joins later
        self.in_flight: deque[InFlight] = deque()
        self.lost_at_ns: deque[int] = deque()  # bookings whose answer never came
        self.now_ns = 0
        self.counts = dict.fromkeys(("requests", "nobody", "gaps", "restarts", "drains", "flips", "users"), 0)
        self.stale_ns_max = 0
        self._gap_since_ns: dict[int, int] = {}
        self._pace_ns = SECOND / requests_per_second
        self._chance = np.random.default_rng(seed)
        self._around = [self._new_user() for _ in range(USERS_AROUND)]
        self._report_ns = self._reap_ns = 0

    def requests(self, seconds: float) -> Iterator[int]:
        """Play so long; yields the number of each request after it was routed."""
        end_ns = self.now_ns + int(seconds * SECOND)
        while self.now_ns < end_ns:
            self.now_ns += int(self._chance.exponential(self._pace_ns))
            self._pass_time()
            self._misfortune()
            self._route()
            yield self.counts["requests"]

    def settle(self) -> None:
        """Let every answer come, every delta arrive, and every lost booking expire."""
        self.now_ns += BOUNDS.reservation_ttl_ns + 2 * SECOND
        self._pass_time()
        for index, node in enumerate(self.nodes):
            if node.phase is not Phase.OFFLINE:
                self.router.residency(index, node.since(self.router.sequence(index)))
                self._gap_since_ns.pop(index, None)

    def truth(self, user: int) -> dict[str, int]:
        """Who holds how much of a user's prefix, by the nodes that the router hears."""
        return {
            name: node.held[user]
            for name, node in zip(self.router.names, self.nodes, strict=True)
            if user in node.held and node.phase is not Phase.OFFLINE
        }

    def holds(self) -> None:
        """What must be true at any time: bounds, and that every booking is somebody's."""
        totals = self.router.totals()
        assert totals["users"] <= BOUNDS.users_max
        assert totals["copies"] <= NODES * (USERS_HELD + 1)
        assert (totals["copies_dropped"], totals["users_dropped"], totals["without_reservation"]) == (0, 0, 0)
        assert totals["reservations"] == len(self.in_flight) + len(self.lost_at_ns)
        views = [self.router.node_view(index, self.now_ns) for index in range(NODES)]
        assert sum(view.in_flight for view in views) == totals["reservations"]

    def agrees(self) -> None:
        """The router knows of every user what the nodes hold; to be called when nothing is on its way."""
        for user in {user for node in self.nodes for user in node.held} | set(self._around):
            assert self.router.resident_tokens(user) == self.truth(user)
        for index, node in enumerate(self.nodes):
            view = self.router.node_view(index, self.now_ns)
            expected = 0 if node.phase is Phase.OFFLINE else len(node.held)
            assert view.resident_users == expected

    # --- time -----------------------------------------------------------------------------

    def _pass_time(self) -> None:
        while self.in_flight and self.in_flight[0].end_ns <= self.now_ns:
            self._answer(self.in_flight.popleft())
        if self.now_ns >= self._report_ns:
            self._report_ns = self.now_ns + REPORT_NS
            self._reports()
        for index in range(NODES):
            self._deliver(index)
        if self.now_ns >= self._reap_ns:
            self._reap_ns = self.now_ns + SECOND
            expired = self.router.reap(self.now_ns)
            assert expired <= len(self.lost_at_ns)
            for _ in range(expired):
                self.lost_at_ns.popleft()
            assert not self.lost_at_ns or self.now_ns - self.lost_at_ns[0] <= BOUNDS.reservation_ttl_ns + SECOND

    def _reports(self) -> None:
        for index, node in enumerate(self.nodes):
            if self._is_back(node):
                self._come_back(index)
            if node.phase is not Phase.OFFLINE:
                used = sum(node.held.values())
                self.router.node_load(
                    index, self.now_ns, load(phase=node.phase, model_version=node.version, kv_tokens_used=min(used, 10_000))
                )

    def _is_back(self, node: PretendedNode) -> bool:
        """Its time away is over, or it never was away but only not there yet."""
        return self.now_ns >= node.back_ns if node.back_ns else node.phase is Phase.OFFLINE

    def _come_back(self, index: int) -> None:
        node = self.nodes[index]
        node.back_ns = 0
        if node.phase is Phase.OFFLINE:
            node.restart()
            self.router.residency(index, node.since(-1))
        node.phase = Phase.READY

    def _deliver(self, index: int) -> None:
        node = self.nodes[index]
        while node.on_its_way and node.on_its_way[0][0] <= self.now_ns:
            if self.router.residency(index, node.on_its_way.popleft()[1]):
                self._repair(index)

    def _repair(self, index: int) -> None:
        """The router noticed that it missed something, and asks from where it stands."""
        self.counts["gaps"] += 1
        since_ns = self._gap_since_ns.pop(index, self.now_ns)
        self.stale_ns_max = max(self.stale_ns_max, self.now_ns - since_ns)
        assert not self.router.residency(index, self.nodes[index].since(self.router.sequence(index)))

    # --- requests -------------------------------------------------------------------------

    def _new_user(self) -> int:
        self.counts["users"] += 1
        return self.counts["users"]

    def _route(self) -> None:
        if self._chance.random() < NEW_USER:
            self._around[int(self._chance.integers(USERS_AROUND))] = self._new_user()
        user = self._around[int(USERS_AROUND * self._chance.random() ** 2)]
        tokens = 64 * int(self._chance.integers(1, 8))
        choice = self.router.pick(self.now_ns, user, tokens, 32)
        self.counts["requests"] += 1
        if not choice.found:
            self.counts["nobody"] += 1
            return
        assert self.nodes[choice.node_index].phase is Phase.READY
        if self._chance.random() < LOST_ANSWER:
            self.lost_at_ns.append(self.now_ns)
            return
        self.in_flight.append(InFlight(self.now_ns + SERVICE_NS, choice.node_index, user, tokens, choice.reservation, choice.predicted_ms))

    def _answer(self, request: InFlight) -> None:
        node = self.nodes[request.node]
        failed = node.phase is Phase.OFFLINE or self._chance.random() < FAILED_ANSWER
        assert self.router.completed(self.now_ns, request.reservation, None if failed else request.predicted_ms, failed)
        if failed:
            return
        lost = self._chance.random() < LOST_DELTA
        if lost:
            self._gap_since_ns.setdefault(request.node, self.now_ns)
        node.serve(self.now_ns, request.user, request.tokens, lost)

    def _misfortune(self) -> None:
        """Restart, drain or flip, now and then; nodes that are away already are left alone."""
        drawn = self._chance.random()
        index = int(self._chance.integers(NODES))
        node = self.nodes[index]
        if node.phase is not Phase.READY:
            return
        if drawn < RESTART:
            self._leave(index, Phase.OFFLINE, "restarts")
            node.on_its_way.clear()
            self._gap_since_ns.pop(index, None)
            self.router.node_gone(index)
        elif drawn < RESTART + DRAIN:
            self._leave(index, Phase.DRAINING, "drains")
            self.router.node_load(index, self.now_ns, load(phase=Phase.DRAINING, model_version=node.version))
        elif drawn < RESTART + DRAIN + FLIP:
            self._flip()

    def _leave(self, index: int, phase: Phase, what: str) -> None:
        self.counts[what] += 1
        self.nodes[index].phase = phase
        self.nodes[index].back_ns = self.now_ns + int(self._chance.uniform(1.0, AWAY_SECONDS) * SECOND)

    def _flip(self) -> None:
        self.counts["flips"] += 1
        for index, node in enumerate(self.nodes):
            if node.phase is not Phase.OFFLINE:
                node.flip()
                self._gap_since_ns.pop(index, None)
                self.router.node_load(index, self.now_ns, load(phase=node.phase, model_version=node.version))
                assert self.router.sequence(index) == -1
                self.router.residency(index, node.since(-1))
            else:
                node.version = str(int(node.version) + 1)
