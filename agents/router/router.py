"""The router's brain as its bodies see it: the daemon and the simulator own one each and call nothing else.

Deterministic in its arguments: time comes in with every call, chance from the seed.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.numerics.jit import bound
from agents.router import load as load_kernels
from agents.router import users as user_kernels
from agents.router.hashing import name_hash
from agents.router.picker import FIRST_TRY, pick
from agents.router.state import NEVER, NO_SLOT, Column, Filter, NodePhase, RouterConfig, RouterState, router_state
from agents.wire.messages import NodeLoad, Phase, ResidencyDelta, ResidencySnapshot

_PHASES = {Phase.READY: NodePhase.READY, Phase.DRAINING: NodePhase.DRAINING, Phase.OFFLINE: NodePhase.OFFLINE}
_SWEEP_SHARE = 64  # reaps for one pass over the user table: about a minute at one a second
_MASK_64 = (1 << 64) - 1


class Pick(NamedTuple):
    """What was chosen for one request. `node_index` is -1 when no node is ready.

    `sample` names the entry of the explain ring, -1 when this pick was not sampled.
    """

    node_index: int
    reservation: int
    predicted_ms: float
    service_ms: float
    rent_ms: float
    reuse_gap_ns: int  # since the cluster last saw the user, -1: never
    resident_elsewhere: bool
    cached_tokens: int
    sample: int

    @property
    def found(self) -> bool:
        """Whether there is a node to send to."""
        return self.node_index >= 0


class Candidate(NamedTuple):
    """One node in an explained pick; milliseconds unless named otherwise."""

    name: str
    filtered: str  # empty: considered
    components: dict[str, float]


class NodeView(NamedTuple):
    """What the router believes about a node now."""

    name: str
    phase: Phase
    picks_total: int
    failures_total: int
    in_flight: int
    queued_ms: float
    reserved_ms: float
    correction: float
    staleness_ms: float | None  # age of the last load report, None before the first
    synced: bool
    sequence: int
    resident_users: int
    resident_tokens: int


class Router:
    """Knowledge of one router and the verbs that change it. One thread owns it."""

    def __init__(self, names: Sequence[str], config: RouterConfig | None = None, seed: int = 0) -> None:
        self.names = tuple(names)
        self.model_versions = [""] * len(names)  # as the nodes told, empty while unknown
        self.config = config or RouterConfig()
        self.state: RouterState = router_state([name_hash(name) for name in self.names], self.config, seed & _MASK_64)
        self._nobody: NDArray[np.int8] = np.zeros(len(self.names), dtype=np.int8)
        self._pick = bound(pick, self.state, 0, np.uint64(0), 0, 0, self._nobody, FIRST_TRY)
        self._complete = bound(load_kernels.complete, self.state, 0, 0.0, False)
        self._sweep_slots = max(1, self.state.users.shape[0] // _SWEEP_SHARE)

    def pick(
        self,
        now_ns: int,
        user_key: int,
        history_tokens: int,
        candidates: int,
        barred: NDArray[np.int8] | None = None,
        retry_gap_ns: int | None = None,
    ) -> Pick:
        """Choose a node and book the predicted work on it until `completed`.

        `user_key` 0 is a request without a user. `barred[N]` is 0 where the request may go, else the
        `Filter` that keeps it away (`EXCLUDED` to `FORCED`). A retry of the same request hands in its first
        pick's `reuse_gap_ns`, so that trying again does not look like the user coming back.
        """
        barred = self._nobody if barred is None else barred
        gap_ns = FIRST_TRY if retry_gap_ns is None else retry_gap_ns
        node, reservation, predicted, service, rent, gap, elsewhere, cached, sample = self._pick(
            self.state,
            now_ns,
            user_key,  # type: ignore[arg-type]
            history_tokens,
            candidates,
            barred,
            gap_ns,
        )
        return Pick(node, reservation, predicted, service, rent, gap, elsewhere == 1, cached, sample)

    def completed(self, now_ns: int, reservation: int, latency_ms: float | None, failed: bool = False) -> bool:
        """End a reservation; `latency_ms` of a good answer teaches, `None` only releases. False if it had ended before."""
        del now_ns  # part of the journal's record; the release itself is timeless
        latency = -1.0 if latency_ms is None else latency_ms
        return self._complete(self.state, reservation, latency, failed)

    def node_load(self, index: int, now_ns: int, load: NodeLoad) -> None:
        """A node's own report of its queue and its cost coefficients.

        A model of another version makes every known prefix of the node worthless; the next change it
        tells of then shows as a gap, and asking again brings a snapshot of what it holds now.
        """
        if self.model_versions[index] not in ("", load.model_version):
            self._forget_resident(index)
        self.model_versions[index] = load.model_version
        self.profiled(index, load.profile)
        heard = load_kernels.HeardLoad(
            phase=int(_PHASES[load.phase]),
            queued_ms=load.queued_ms,
            queue_depth=load.queue_depth,
            emb_hit_ratio=load.emb_hit_ratio,
            ms_fixed=load.ms_fixed,
            ms_per_missing_row=load.ms_per_missing_row,
            ms_per_token=load.ms_per_token,
            ms_per_token_squared=load.ms_per_token_squared,
            ms_per_candidate=load.ms_per_candidate,
            kv_hit_compute_ratio=load.kv_hit_compute_ratio,
            refill_backlog_bytes=float(load.refill_backlog_bytes),
            kv_tokens_capacity=load.kv_tokens_capacity,
            kv_tokens_used=load.kv_tokens_used,
            served_total=load.served_total,
        )
        load_kernels.hear(self.state, index, now_ns, heard)

    def profiled(self, index: int, profile: str) -> None:
        """A node is of this profile; empty: nothing is known of others like it."""
        self.state.nodes[index]["profile"] = name_hash(profile) if profile else 0

    def residency(self, index: int, frame: ResidencySnapshot | ResidencyDelta) -> bool:
        """Apply what a node says it holds. True: a gap was noticed, ask the node again from `sequence(index)`."""
        record = self.state.nodes[index]
        if isinstance(frame, ResidencySnapshot):
            user_kernels.clear_resident(self.state, index)
        else:
            if frame.seq_first > int(record["sequence"]) + 1:
                return True
            if frame.seq <= int(record["sequence"]):
                return False  # an overlap of a repair: known already
        keys = np.array(frame.user_keys, dtype=np.uint64)
        user_kernels.set_resident(self.state, index, keys, np.array(frame.cached_tokens, dtype=np.int64))
        record["sequence"] = frame.seq
        record["synced"] = 1
        return False

    def seen(self, now_ns: int, user_keys: Sequence[int], ages_ms: Sequence[int]) -> None:
        """Users that were served lately, maybe through another router: their last-seen times never move back."""
        times_ns = now_ns - np.array(ages_ms, dtype=np.int64) * 1_000_000
        user_kernels.mark_seen(self.state, np.array(user_keys, dtype=np.uint64), times_ns)

    def users_refused(self, index: int) -> int:
        """Users that a node told of beyond its share of the tables, and that were left out."""
        return int(self.state.nodes[index]["users_refused"])

    def sequence(self, index: int) -> int:
        """Last residency sequence number applied for a node, -1 when nothing is known."""
        return int(self.state.nodes[index]["sequence"])

    def node_gone(self, index: int) -> None:
        """The node cannot be heard: not ready, and nothing is known of what it holds.

        Reservations stay until their requests end, so that no count is lost or freed twice.
        """
        record = self.state.nodes[index]
        record["phase"] = int(NodePhase.OFFLINE)
        record["queued_ms"] = 0.0
        self.model_versions[index] = ""
        self._forget_resident(index)

    def _forget_resident(self, index: int) -> None:
        self.state.nodes[index]["sequence"] = NEVER
        self.state.nodes[index]["synced"] = 0
        user_kernels.clear_resident(self.state, index)

    def reap(self, now_ns: int) -> int:
        """Once a second: end lost reservations, forget old users. Returns reservations ended."""
        user_kernels.forget_old_users(self.state, now_ns, self._sweep_slots)
        return load_kernels.reap(self.state, now_ns)

    def ready_count(self) -> int:
        """Nodes that are ready by their own word and can be heard."""
        return int((self.state.nodes["phase"] == int(NodePhase.READY)).sum())

    def explain(self, sample: int) -> list[Candidate] | None:
        """Every candidate's components of a sampled pick; `None` once the ring has moved on."""
        rows = self._rows(sample)
        return None if rows is None else [_candidate(name, row) for name, row in zip(self.names, rows, strict=True)]

    def sampled(self, sample: int, index: int) -> NDArray[np.float32] | None:
        """Columns of one node in a sampled pick; `None` once the ring has moved on."""
        rows = self._rows(sample)
        return None if rows is None else rows[index]

    def _rows(self, sample: int) -> NDArray[np.float32] | None:
        ring = self.state.ring
        newest = int(self.state.totals[0]["samples"])
        if sample < 0 or not newest - ring.shape[0] <= sample < newest:
            return None
        rows: NDArray[np.float32] = ring[sample % ring.shape[0]]
        return rows

    def resident_tokens(self, user_key: int) -> dict[str, int]:
        """Known prefix of a user per node, nodes without one left out."""
        out = np.zeros(len(self.names), dtype=np.int64)
        user_kernels.resident_tokens(self.state, np.uint64(user_key), out)
        return {name: int(tokens) for name, tokens in zip(self.names, out, strict=True) if tokens > 0}

    def node_view(self, index: int, now_ns: int) -> NodeView:
        """One row of the fleet view."""
        record = self.state.nodes[index]
        heard_ns = int(record["load_at_ns"])
        return NodeView(
            name=self.names[index],
            phase=_phase(int(record["phase"])),
            picks_total=int(record["picks_total"]),
            failures_total=int(record["failures_total"]),
            in_flight=int(record["in_flight"]),
            queued_ms=load_kernels.queue_ahead_ms(self.state, index, now_ns),
            reserved_ms=float(record["reserved_ms"]),
            correction=float(record["correction"]),
            staleness_ms=None if heard_ns == NEVER else (now_ns - heard_ns) / 1e6,
            synced=bool(record["synced"]),
            sequence=int(record["sequence"]),
            resident_users=int(record["resident_users"]),
            resident_tokens=int(record["resident_tokens"]),
        )

    def totals(self) -> dict[str, int]:
        """Counters and sizes of the bounded tables, by name."""
        record = self.state.totals[0]
        names = ("picks", "users", "copies", "reservations", "users_dropped", "copies_dropped")
        more = ("reservations_expired", "without_reservation", "without_user")
        refused = int(self.state.nodes["users_refused"].sum())
        return {name: int(record[name]) for name in (*names, *more)} | {"users_refused": refused}

    @property
    def memory_bytes(self) -> int:
        """Bytes of all state, fixed for the router's life."""
        return sum(array.nbytes for array in self.state)


def _phase(code: int) -> Phase:
    for wire, phase in _PHASES.items():
        if phase == code:
            return wire
    return Phase.OFFLINE


def _candidate(name: str, row: NDArray[np.float32]) -> Candidate:
    reason = Filter(int(row[Column.FILTER]))
    components = {column.name.lower(): float(row[column]) for column in Column if column is not Column.FILTER}
    return Candidate(name, "" if reason is Filter.NONE else reason.name.lower(), components)


__all__ = ["NO_SLOT", "Candidate", "NodeView", "Pick", "Router", "RouterConfig"]
