"""Everything a simulated fleet is, as arrays: the nodes' memory, requests under way, queues, rings of what is due.

Only the kernels of `events` write it while time runs; between two runs of the kernel the Python driver ticks the
nodes, whose states are views into the same memory.
"""

from collections.abc import Sequence
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.caches.policy import CachePolicy
from agents.node.booking import new_scratch
from agents.node.meters import Meters
from agents.node.queue import QueueState
from agents.numerics.reuse_state import ReuseState
from agents.pool.state import PoolState
from agents.profiles import Profile
from agents.router.state import RouterState

NOT_BUSY = np.int64(1) << 62  # an idle device is done: never
RESIDENCY_DELAY_NS = 20_000_000  # a live delta is on its way for about so long
LOAD_PERIOD_NS = 200_000_000
HOP_NS = 500_000  # router and gateway together, each way
DEADLINE_SLOS = 8  # as the live engine's default deadline
LINK_SHARE_MIN = 0.05  # refill never takes the whole link: it yields to the foreground

BODY = np.dtype(
    [
        ("size", "i8"),  # of the batch in flight
        ("rows", "i8"),  # distinct rows of it, sampled
        ("missing", "i8"),
        ("emb_ms", "f8"),
        ("service_ms", "f8"),
        ("link_share", "f8"),  # what refill leaves to the foreground
        ("published", "i8"),  # newest entry of the residency log that the router knows
        ("phase", "i8"),  # a router's NodePhase
        ("queue_max", "i8"),
        ("batch_max", "i8"),
        ("block_tokens", "i8"),
        ("rows_per_page", "i8"),  # sampled
        ("deadline_ns", "i8"),
        ("ms_fixed", "f8"),
        ("ms_per_hit_row", "f8"),
        ("ms_per_missing_row", "f8"),
        ("ms_per_token", "f8"),
        ("ms_per_token_squared", "f8"),
        ("ms_per_candidate", "f8"),
        ("ms_kv_hit_floor", "f8"),
        ("kv_hit_compute_ratio", "f8"),
    ],
    align=True,
)
REQUEST = np.dtype(
    [
        ("key", "u8"),
        ("arrival_ns", "i8"),
        ("number", "i8"),  # of the stream
        ("history_tokens", "i8"),
        ("candidates", "i8"),
        ("blocks", "i4"),
        ("history_rows", "i4"),  # sampled
        ("candidate_rows", "i4"),  # sampled
        ("tries", "i4"),
        ("reservation", "i8"),
        ("gap_ns", "i8"),
        ("elsewhere", "i4"),
        ("node", "i4"),
        ("predicted_ms", "f8"),
    ],
    align=True,
)
ANSWER = np.dtype(
    [("number", "i8"), ("arrival_ns", "i8"), ("latency_ms", "f8"), ("predicted_ms", "f8"), ("node", "i4"), ("cached", "i4")], align=True
)
DUE = np.dtype([("at_ns", "i8"), ("what", "i8")], align=True)
ROUTED = np.dtype([("gap_ns", "i8"), ("node", "i4"), ("elsewhere", "i4")], align=True)
HEAD = np.dtype(
    [
        ("now_ns", "i8"),
        ("free", "i8"),  # request slots on the free list
        ("entering_first", "i8"),  # rings: first place in use, and how many
        ("entering", "i8"),
        ("publishing_first", "i8"),
        ("publishing", "i8"),
        ("report_ns", "i8"),  # next load report, and whose
        ("report_node", "i8"),
        ("report_period_ns", "i8"),
        ("answers", "i8"),
        ("refused", "i8"),  # queue full, deadline passed or nobody ready
        ("rerouted", "i8"),  # tried again after their node was lost
        ("origin_ns", "i8"),  # the stream's time zero
        ("row_scale", "f8"),  # rows that one sampled row stands for
        ("open_loop", "i8"),  # routes are given, not picked
        ("settling", "i8"),  # devices take no time
        ("arrived", "i8"),  # requests of the stream so far
        ("hop_ns", "i8"),  # router and gateway, there and back each
    ],
    align=True,
)


class InFlight(NamedTuple):
    """The batch on each node's device: [nodes, batch_max]."""

    slot: NDArray[np.int64]
    history_tokens: NDArray[np.int64]
    candidates: NDArray[np.int64]
    cached_tokens: NDArray[np.int64]
    entries: NDArray[np.int32]
    queue_ms: NDArray[np.float64]
    compute_ms: NDArray[np.float64]


class Booking(NamedTuple):
    """Scratch of one booking: a batch's arrays in, its plan out; see `node.batch`."""

    user_keys: NDArray[np.uint64]
    reuse_gap_ns: NDArray[np.int64]
    resident_elsewhere: NDArray[np.bool_]
    miss_reasons: NDArray[np.int8]
    block_hashes: NDArray[np.uint64]
    offsets: NDArray[np.int64]  # [6, batch_max + 1] blocks, history, candidates, read, write, rows
    history_rows: NDArray[np.int64]
    candidate_rows: NDArray[np.int64]
    pages: NDArray[np.int32]  # [2, blocks] read, write
    seen: NDArray[np.void]  # SCRATCH of the booking
    rows: NDArray[np.int64]
    places: NDArray[np.int32]  # [4, rows] slots, index, missing, insert
    late: NDArray[np.int64]  # [queue_max] requests whose deadline has passed


class World(NamedTuple):
    """N nodes, one router. Jagged parts of a request lie in its slot's row."""

    head: NDArray[np.void]  # [1] HEAD
    bodies: NDArray[np.void]  # [N] BODY
    done_ns: NDArray[np.int64]  # [N] when the batch in flight ends; side by side, as all are looked through after most events
    requests: NDArray[np.void]  # [slots] REQUEST
    hashes: NDArray[np.uint64]  # [slots, most blocks]
    rows: NDArray[np.int64]  # [slots, most rows] history, then candidates
    free_slots: NDArray[np.int64]  # [slots] stack
    entering: NDArray[np.void]  # [slots] DUE ring: requests between router and node
    publishing: NDArray[np.void]  # [ring] DUE ring: residency on its way to the router
    answers: NDArray[np.void]  # [answers] ANSWER
    service_ms: NDArray[np.float64]  # [N, seconds, 2] device time by half of the requests
    barred: NDArray[np.int8]  # [N] nobody
    jitter: NDArray[np.float64]  # [J] equally likely factors on a batch's device time; a single 1.0 where it is exact
    late_ns: NDArray[np.int64]  # [L] equally likely delays of an answer beyond the hop; a single 0 where every hop is alike
    queues: QueueState  # [N, queue_max] each
    in_flight: InFlight
    booking: Booking
    pool: PoolState
    pool_bounds: NDArray[np.int64]
    meters: Meters
    meters_bounds: NDArray[np.int64]
    router: RouterState
    reuse: ReuseState  # of the cluster's users
    policy: CachePolicy


class Stop(IntEnum):
    """Why the kernel came back."""

    TIME = 0  # everything up to the given time has happened
    BLOCK = 1  # the block's last request has arrived
    FULL = 2  # the answers must be taken away


class Memory(NamedTuple):
    """What the nodes brought: see `memory.joined`."""

    pool: PoolState
    pool_bounds: NDArray[np.int64]
    meters: Meters
    meters_bounds: NDArray[np.int64]


ANSWERS_MAX = 65_536


def new_world(
    profiles: list[Profile],
    memory: Memory,
    router: RouterState,
    reuse: ReuseState,
    policy: CachePolicy,
    *,
    row_shift: int,
    seconds: int,
    origin_ns: int,
    hop_ns: int = HOP_NS,
    jitter: Sequence[float] = (),
    late_ms: Sequence[float] = (),
) -> World:
    """An empty fleet at `origin_ns`; one profile per node."""
    nodes, queue_max, batch_max = len(profiles), max(p.queue_max for p in profiles), max(p.batch_max for p in profiles)
    slots = nodes * (queue_max + batch_max) + 4096  # queued or on the device; the rest between router and node
    head: NDArray[Any] = np.zeros(1, HEAD)
    head["now_ns"] = head["origin_ns"] = origin_ns
    head["report_ns"], head["report_period_ns"] = origin_ns, max(1, LOAD_PERIOD_NS // nodes)
    head["free"], head["row_scale"], head["hop_ns"] = slots, float(1 << row_shift), hop_ns
    return World(
        head=head,
        bodies=_bodies(profiles, row_shift),
        done_ns=np.full(nodes, NOT_BUSY),
        requests=np.zeros(slots, REQUEST),
        hashes=np.zeros((slots, 1), np.uint64),
        rows=np.zeros((slots, 1), np.int64),
        free_slots=np.arange(slots),
        entering=np.zeros(slots, DUE),
        publishing=np.zeros(64 * nodes, DUE),
        answers=np.zeros(ANSWERS_MAX, ANSWER),
        service_ms=np.zeros((nodes, seconds, 2)),
        barred=np.zeros(nodes, np.int8),
        jitter=np.array(jitter or (1.0,), np.float64),
        late_ns=np.rint(np.array(late_ms or (0.0,)) * 1e6).astype(np.int64),
        queues=_queues(nodes, queue_max),
        in_flight=_in_flight(nodes, batch_max),
        booking=_booking(queue_max, batch_max, 1, 1),
        pool=memory.pool,
        pool_bounds=memory.pool_bounds,
        meters=memory.meters,
        meters_bounds=memory.meters_bounds,
        router=router,
        reuse=reuse,
        policy=policy,
    )


def roomy(world: World, blocks: int, rows: int) -> World:
    """The same world, or one with room for requests of so many blocks and rows and an eighth more.

    The longest request is a little longer in every other block of a stream, and to make room moves all slots.
    """
    if blocks <= world.hashes.shape[1] and rows <= world.rows.shape[1]:
        return world
    return widened(world, blocks + blocks // 8, rows + rows // 8)


def widened(world: World, blocks: int, rows: int) -> World:
    """The same world with slots for so many blocks and rows, and none narrower than they were."""
    blocks, rows = max(blocks, world.hashes.shape[1]), max(rows, world.rows.shape[1])
    slots, batch_max = world.requests.shape[0], world.in_flight.slot.shape[1]
    hashes, kept = np.zeros((slots, blocks), np.uint64), np.zeros((slots, rows), np.int64)
    hashes[:, : world.hashes.shape[1]] = world.hashes
    kept[:, : world.rows.shape[1]] = world.rows
    return world._replace(hashes=hashes, rows=kept, booking=_booking(world.booking.late.shape[0], batch_max, blocks, rows))


def _bodies(profiles: list[Profile], row_shift: int) -> NDArray[Any]:
    bodies: NDArray[Any] = np.zeros(len(profiles), BODY)
    bodies["link_share"], bodies["phase"] = 1.0, 1
    for node, profile in enumerate(profiles):
        body = bodies[node]
        body["queue_max"], body["batch_max"] = profile.queue_max, profile.batch_max
        body["block_tokens"] = profile.block_tokens
        body["rows_per_page"] = max(1, profile.rows_per_page >> row_shift)
        body["deadline_ns"] = int(profile.slo_ms * DEADLINE_SLOS * 1e6)
        for name in type(profile.cost).__struct_fields__:
            body[name] = getattr(profile.cost, name)
    return bodies


def _queues(nodes: int, queue_max: int) -> QueueState:
    whole = (nodes, queue_max)
    return QueueState(
        size=np.zeros((nodes, 1), np.int64),
        request_id=np.zeros(whole, np.int64),
        user_key=np.zeros(whole, np.uint64),
        arrival_ns=np.zeros(whole, np.int64),
        deadline_ns=np.zeros(whole, np.int64),
        work_ns=np.zeros(whole, np.int64),
        mark=np.zeros(whole, np.int8),
    )


def _in_flight(nodes: int, batch_max: int) -> InFlight:
    whole = (nodes, batch_max)
    return InFlight(
        slot=np.zeros(whole, np.int64),
        history_tokens=np.zeros(whole, np.int64),
        candidates=np.zeros(whole, np.int64),
        cached_tokens=np.zeros(whole, np.int64),
        entries=np.full(whole, -1, np.int32),
        queue_ms=np.zeros(whole),
        compute_ms=np.zeros(whole),
    )


def _booking(queue_max: int, batch_max: int, blocks: int, rows: int) -> Booking:
    return Booking(
        user_keys=np.zeros(batch_max, np.uint64),
        reuse_gap_ns=np.zeros(batch_max, np.int64),
        resident_elsewhere=np.zeros(batch_max, np.bool_),
        miss_reasons=np.zeros(batch_max, np.int8),
        block_hashes=np.zeros(batch_max * blocks, np.uint64),
        offsets=np.zeros((6, batch_max + 1), np.int64),
        history_rows=np.zeros(batch_max * rows, np.int64),
        candidate_rows=np.zeros(batch_max * rows, np.int64),
        pages=np.zeros((2, batch_max * blocks), np.int32),
        seen=new_scratch(batch_max * rows),
        rows=np.zeros(batch_max * rows, np.int64),
        places=np.zeros((4, batch_max * rows), np.int32),
        late=np.zeros(queue_max, np.int64),
    )
