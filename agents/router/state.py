"""What a router knows, as a handful of record arrays that kernels read and write.

Few arrays on purpose: every array costs about 0.1 us to hand to a kernel, so the fields of one
thing (a node, a user, a reservation) stand together in one record.
"""

from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

NEVER = -1  # a time that was not
NO_SLOT = -1
IN_USE = -2  # marks a reservation slot that is not on the free list


class Policy(IntEnum):
    """How to choose among the nodes; the names of the command line are in `POLICIES`."""

    ROUND_ROBIN = 0
    LEAST_LOADED = 1
    CONSISTENT_HASH = 2
    KV_AFFINITY = 3
    JOINT = 4


POLICIES: dict[str, Policy] = {
    "round-robin": Policy.ROUND_ROBIN,
    "least-loaded": Policy.LEAST_LOADED,
    "consistent-hash": Policy.CONSISTENT_HASH,
    "kv-affinity": Policy.KV_AFFINITY,
    "joint": Policy.JOINT,
}


class NodePhase(IntEnum):
    """`wire.Phase` as a number."""

    OFFLINE = 0
    READY = 1
    DRAINING = 2


class Filter(IntEnum):
    """Why a node was not considered, in the order of asking. Those after `FORCED` give way when nobody else is left.

    `EXCLUDED` to `FORCED` come in with a request, as its `barred` array.
    """

    NONE = 0
    OFFLINE = 1
    DRAINING = 2
    EXCLUDED = 3  # already tried for this request, or its breaker is open
    MODEL_VERSION = 4  # serves another version than the one asked for
    SUBSET = 5  # not among the endpoints the caller allows
    FORCED = 6  # an operator named another node
    STALE = 7
    LOAD_CAP = 8
    SHARE_CAP = 9


class Column(IntEnum):
    """Columns of `RouterState.scores`: one row per node, the components of the last pick in milliseconds."""

    QUEUE = 0  # work ahead of this request
    FIXED = 1
    KV = 2  # recompute of the tokens beyond the resident prefix
    EMB = 3  # expected missing rows
    CANDIDATES = 4
    REFILL = 5  # foreground misses share the link with background refill
    RENT = 6  # value of what a second copy would displace
    CORRECTION = 7  # factor on everything, learned from observed over predicted
    SERVICE = 8  # predicted work of this request on this node, without the queue
    PREDICTED = 9  # queue + service
    SCORE = 10  # predicted + rent + delay
    CACHED = 11  # tokens
    FILTER = 12  # a Filter
    PREFERENCE = 13  # what the paper's rule scored, unitless
    DELAY = 14  # of others, by this request's service


COLUMNS = len(Column)
RESIDENT_SHARES = 2  # even shares of the table of copies that one node may fill: nodes are unequal, none holds twice the mean for long
RING_BYTES_MAX = 16 * 1024 * 1024

NODE = np.dtype(
    [
        ("hash", "u8"),
        ("phase", "i8"),
        ("load_at_ns", "i8"),
        ("sequence", "i8"),
        ("synced", "i8"),  # a snapshot or an unbroken range was applied since the node appeared
        ("queued_ms", "f8"),
        ("queue_depth", "i8"),
        ("emb_hit_ratio", "f8"),
        ("profile", "u8"),  # hash of its name: nodes of one profile compute alike; 0: not told
        ("ms_per_missing_row", "f8"),
        ("ms_fixed", "f8"),  # this and the next three as believed, then as the node found them itself
        ("ms_per_token", "f8"),
        ("ms_per_token_squared", "f8"),
        ("ms_per_candidate", "f8"),
        ("own_ms_fixed", "f8"),
        ("own_ms_per_token", "f8"),
        ("own_ms_per_token_squared", "f8"),
        ("own_ms_per_candidate", "f8"),
        ("believed_at_ns", "i8"),
        ("kv_hit_compute_ratio", "f8"),  # share of its own recompute that a resident prefix still costs
        ("refill_backlog_bytes", "f8"),
        ("kv_tokens_capacity", "f8"),
        ("kv_tokens_used", "f8"),
        ("served_total", "i8"),
        ("epoch", "i8"),  # counts load reports
        ("in_flight", "i8"),
        ("reserved_ms", "f8"),  # predicted service of everything in flight, in the node's own milliseconds
        ("unreported_ms", "f8"),  # the part picked after the last report
        ("completed_ms", "f8"),  # work inside the last report that ended since
        ("log_correction", "f8"),
        ("correction", "f8"),  # its exponential: picks are more frequent than lessons
        ("learned", "i8"),  # observations since the last report
        ("recent_picks", "f8"),  # decayed
        ("picks_total", "i8"),
        ("failures_total", "i8"),
        ("resident_users", "i8"),
        ("resident_tokens", "i8"),
        ("users_refused", "i8"),  # told of beyond its share of the tables
    ],
    align=True,
)

USER = np.dtype([("key", "u8"), ("seen_ns", "i8"), ("head", "i4"), ("last_node", "i4")], align=True)
COPY = np.dtype([("next", "i4"), ("node", "i4"), ("tokens", "i4")], align=True)
RESERVATION = np.dtype(
    [("at_ns", "i8"), ("epoch", "i8"), ("service_ms", "f8"), ("predicted_ms", "f8"), ("node", "i4"), ("next", "i4"), ("generation", "i8")],
    align=True,
)
TOTALS = np.dtype(
    [
        ("random", "u8"),
        ("round_robin", "i8"),
        ("decayed_at_ns", "i8"),
        ("users", "i8"),
        ("copies", "i8"),
        ("copy_free", "i8"),
        ("hand", "i8"),
        ("reservations", "i8"),
        ("reservation_free", "i8"),
        ("picks", "i8"),
        ("samples", "i8"),
        ("sample_tokens", "f8"),
        ("sample_at_ns", "i8"),
        ("mean_service_ms", "f8"),  # of late picks, 0 before the first; so the next two
        ("mean_tokens", "f8"),
        ("mean_candidates", "f8"),
        ("fastest_ms", "f8"),  # service of the whole fleet lately: no prediction lies below it
        ("fastest_lessons", "i8"),
        ("users_dropped", "i8"),
        ("copies_dropped", "i8"),
        ("reservations_expired", "i8"),
        ("without_reservation", "i8"),
        ("without_user", "i8"),
    ],
    align=True,
)
SETTINGS = np.dtype(
    [
        ("policy", "i8"),
        ("fresh_ns", "i8"),
        ("admission_window_ns", "i8"),
        ("memory_ns", "i8"),
        ("reservation_ttl_ns", "i8"),
        ("share_half_life_ns", "i8"),
        ("sample_every", "i8"),
        ("samples_per_second", "f8"),
        ("users_max", "i8"),
        ("resident_users_max", "i8"),  # of one node
        ("load_cap_ms", "f8"),
        ("busy_ms", "f8"),
        ("share_cap_ratio", "f8"),
        ("share_picks_min", "f8"),
        ("rent_weight", "f8"),
        ("rent_growth", "f8"),
        ("delay_weight", "f8"),
        ("refill_weight", "f8"),
        ("refill_half_bytes", "f8"),
        ("tie_ms", "f8"),
        ("tie_ratio", "f8"),
        ("cold_window_ms", "f8"),
        ("cold_window_ratio", "f8"),
        ("learning_rate", "f8"),
        ("correction_max", "f8"),
        ("correction_decay", "f8"),
        ("fastest_growth", "f8"),
        ("spill_ratio", "f8"),
        ("affinity_bonus", "f8"),
    ],
    align=True,
)


class RouterConfig(NamedTuple):
    """Settings of one router; every bound with its reason."""

    policy: str = "joint"
    fresh_ns: int = 2_000_000_000  # ten missed load reports: the node's queue is unknown
    admission_window_ns: int = 0  # nodes cache a user only on the second request within it; 0: at once
    memory_ns: int = 900_000_000_000  # a user not seen for longer and resident nowhere is forgotten
    reservation_ttl_ns: int = 120_000_000_000  # longer than any upstream timeout: only a lost response expires
    share_half_life_ns: int = 2_000_000_000
    load_cap_ms: float = 2_000.0  # nobody waits this long for an answer; spill before the node refuses
    busy_ms: float = 120.0  # queue that counts as load 1.0 in the published rule: the profile's SLO
    share_cap_ratio: float = 1.3  # of an even share: a locality that loads a node further costs more than it saves
    share_picks_min: float = 16.0  # per node: below it a share is noise
    rent_weight: float = 1.0  # a displaced copy is worth about as much as the one that displaces it
    rent_growth: float = 4.0  # of the rent where requests wait: what it displaces is recomputed in front of them, too
    delay_weight: float = 1.0  # each who waits, waits for this service
    refill_weight: float = 0.1
    refill_half_bytes: float = 1_048_576.0
    tie_ms: float = 0.05
    tie_ratio: float = 0.02
    cold_window_ms: float = 1.0
    cold_window_ratio: float = 0.10
    learning_rate: float = 0.02  # 50 answers to move by a factor of e: one slow answer must not steer
    correction_max: float = 4.0
    correction_decay: float = 0.99  # per unlearned report (0.2 s): an avoided node is tried again in a minute
    fastest_growth: float = 1.001  # per answer: a fleet that became slower is believed after a thousand
    spill_ratio: float = 0.85  # the published rule's threshold
    affinity_bonus: float = 0.1
    users_max: int = 131_072  # 48 bytes each with the table half full
    copies_max: int = 262_144  # 12 bytes each
    reservations_max: int = 8_192  # above any sane concurrency of one router
    ring: int = 1_024  # picks that can still be explained, fewer in a fleet whose rows exceed `RING_BYTES_MAX`
    sample_every: int = 1  # 0: never
    samples_per_second: float = 100.0  # at most, saved up for a second: at 6,000 requests/s the ring still spans ten seconds


class RouterState(NamedTuple):
    """All of it. Only kernels write; one thread owns it."""

    nodes: NDArray[np.void]  # [N] NODE
    users: NDArray[np.void]  # [power of two] USER, linear probing
    copies: NDArray[np.void]  # COPY, one list per user
    reservations: NDArray[np.void]  # RESERVATION
    totals: NDArray[np.void]  # [1] TOTALS
    settings: NDArray[np.void]  # [1] SETTINGS
    scores: NDArray[np.float64]  # [N, COLUMNS] of the last pick
    ring: NDArray[np.float32]  # [ring, N, COLUMNS] of sampled picks
    eligible: NDArray[np.int64]  # [N] scratch


def resident_users_max(config: RouterConfig, nodes: int) -> int:
    """How many users one node may be known to hold: a node that tells of more would push out what others hold.

    Two even shares of the copies, but no more than half of the table of users, so that one node leaves the other half
    to the rest. With 32 nodes and the sizes above that is 16,384; the largest profile keeps 67,232 pages of 168 tokens,
    which as many users fill with 690 tokens each. A single node has the table to itself.
    """
    if nodes <= 1:
        return config.users_max
    return max(1, min(RESIDENT_SHARES * config.copies_max // nodes, config.users_max // 2))


def _settings(config: RouterConfig, nodes: int) -> NDArray[np.void]:
    settings: NDArray[Any] = np.zeros(1, dtype=SETTINGS)
    known = config._asdict() | {"policy": int(POLICIES[config.policy]), "resident_users_max": resident_users_max(config, nodes)}
    for name in SETTINGS.names or ():
        settings[name] = known[name]
    return settings


def _power_of_two(least: int) -> int:
    return 1 << max(3, (least - 1).bit_length())


def _ring_entries(wanted: int, nodes: int) -> int:
    entry_bytes = max(1, nodes) * COLUMNS * np.dtype(np.float32).itemsize
    return max(1, min(wanted, RING_BYTES_MAX // entry_bytes))


def router_state(node_hashes: list[int], config: RouterConfig, seed: int) -> RouterState:
    """Empty knowledge about nodes with these stable hashes (of their names, for the hash orders)."""
    if config.policy not in POLICIES:
        raise ValueError(f"policy: unknown {config.policy!r}, choose one of {', '.join(POLICIES)}")
    nodes: NDArray[Any] = np.zeros(len(node_hashes), dtype=NODE)
    nodes["hash"] = np.array(node_hashes, dtype=np.uint64)
    nodes["load_at_ns"] = NEVER
    nodes["sequence"] = NEVER
    nodes["correction"] = 1.0
    users: NDArray[Any] = np.zeros(_power_of_two(2 * config.users_max), dtype=USER)
    copies: NDArray[Any] = np.zeros(config.copies_max, dtype=COPY)
    copies["next"] = np.append(np.arange(1, config.copies_max), NO_SLOT)
    reservations: NDArray[Any] = np.zeros(config.reservations_max, dtype=RESERVATION)
    reservations["next"] = np.append(np.arange(1, config.reservations_max), NO_SLOT)
    totals: NDArray[Any] = np.zeros(1, dtype=TOTALS)
    totals["random"] = np.uint64(seed)
    totals["round_robin"] = NO_SLOT
    totals["fastest_ms"] = np.inf
    totals["sample_tokens"] = config.samples_per_second
    return RouterState(
        nodes=nodes,
        users=users,
        copies=copies,
        reservations=reservations,
        totals=totals,
        settings=_settings(config, len(node_hashes)),
        scores=np.zeros((len(node_hashes), COLUMNS)),
        ring=np.zeros((_ring_entries(config.ring, len(node_hashes)), len(node_hashes), COLUMNS), dtype=np.float32),
        eligible=np.zeros(len(node_hashes), dtype=np.int64),
    )
