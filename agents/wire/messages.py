"""Every message that crosses a process boundary, as strict, versioned structs.

Units stand in the names. Times on the wire are unix nanoseconds. A decoder made from
these types refuses unknown tags, wrong types and non-finite numbers by name; nothing
behind the edge validates again.
"""

import math
from enum import StrEnum

import msgspec

WIRE_VERSION = 1


class Mode(StrEnum):
    """Who sets the ratio. `recovery` and `demoted` occur in a status, never in a spec."""

    AUTO = "auto"
    OVERRIDE = "override"
    PIN = "pin"
    RECOVERY = "recovery"
    DEMOTED = "demoted"


class ControllerMode(StrEnum):
    """`advisory` decides and records but does not move."""

    ACTIVE = "active"
    ADVISORY = "advisory"
    OFF = "off"


class Phase(StrEnum):
    """What a node says about its readiness; `offline` is said about it by others."""

    READY = "ready"
    DRAINING = "draining"
    OFFLINE = "offline"


class VersionPart(StrEnum):
    """What a kept prefix is a function of, beside its user's history: either may change alone, and then the prefix is void."""

    MODEL = "model"
    FEATURES = "features"  # the schema by which clients build items, actions and timestamps


class ConditionStatus(StrEnum):
    """Unknown is not False."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """One observed fact about a node, in the words of `spec / status / conditions`."""

    type: str
    status: ConditionStatus
    reason: str
    message: str
    last_transition_unix_ns: int
    observed_generation: int = 0


class GuardRails(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Operator's limits, above every policy. Shares are 0..1 of the pool."""

    emb_ratio_min: float = 0.10
    emb_ratio_max: float = 0.90
    step_ratio_max: float = 0.10
    dead_band_ratio: float = 0.01
    dwell_seconds_min: float = 5.0

    def __post_init__(self) -> None:
        """Refuse rails that are not finite shares or leave no room between them."""
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if not math.isfinite(value) or value < 0:
                raise ValueError(f"{name} must be a finite number >= 0")
        if not 0.0 < self.emb_ratio_min < self.emb_ratio_max < 1.0:
            raise ValueError("emb_ratio_min must be below emb_ratio_max, both inside (0, 1)")


class NodeSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a node should do. `generation` rises by one per change; older ones are refused."""

    generation: int = 0
    mode: Mode = Mode.AUTO
    controller: ControllerMode = ControllerMode.ACTIVE
    emb_ratio: float | None = None  # with override and pin only
    reason: str = ""
    actor: str = ""
    ttl_remaining_ms: int | None = None  # with override only
    guard_rails: GuardRails = GuardRails()
    policy_digest: str = ""
    policy_generation: int = 0  # in which somebody last said who decides: the same digest said again is a new word
    pool_bytes: int | None = None  # size of the pool; None: all that the profile has


class PoolBytes(msgspec.Struct, frozen=True, kw_only=True):
    """Three numbers that differ while a migration runs, per cache."""

    requested_bytes: int
    granted_bytes: int
    used_bytes: int


class StageMillis(msgspec.Struct, frozen=True, kw_only=True):
    """Mean time per request in each stage over the telemetry window."""

    queue_ms: float
    emb_ms: float
    kv_ms: float
    compute_ms: float


class LatencySketch(msgspec.Struct, frozen=True, kw_only=True):
    """A sparse DDSketch (1 % relative accuracy, 0.1 ms to 10 s). Merged, never averaged."""

    indexes: list[int]
    counts: list[int]


class TableLookups(msgspec.Struct, frozen=True, kw_only=True):
    """Look-ups of distinct rows in one embedding table since its version was taken up."""

    name: str
    lookups_total: int
    hits_total: int


class NodeTelemetry(msgspec.Struct, frozen=True, kw_only=True, tag="telemetry"):
    """One second of a node's life. Ratios are null while nothing was counted."""

    name: str
    at_unix_ns: int
    seq: int
    phase: Phase
    mode: Mode
    observed_generation: int
    emb_ratio: float
    target_emb_ratio: float
    recommended_emb_ratio: float | None
    emb_hit_ratio: float | None
    kv_hit_ratio: float | None
    latency_ms_p50: float | None
    latency_ms_p99: float | None  # sliding 60 s, null under 300 requests
    latency_count: int
    slo_ms: float
    slo_ratio: float | None
    requests_per_second: float
    requests_total: int
    failures_total: int
    queue_depth: int
    utilisation: float
    emb: PoolBytes
    kv: PoolBytes
    pool_bytes: int
    migrating_bytes: int
    refill_backlog_bytes: int
    refill_bytes_total: int
    refill_throttled_seconds_total: float
    emb_evictions_total: int
    kv_evictions_total: int
    moved_pages_total: int
    moves_total: int
    stages: StageMillis
    miss_reasons: dict[str, int]
    sketch: LatencySketch
    conditions: list[Condition]
    controller: str
    profile: str
    device: str
    emulated: bool
    model_version: str
    override_remaining_ms: int | None = None
    refill_bytes_per_second: float = 0.0  # over the last seconds
    feature_schema: str = ""  # of the prefixes held, beside the model version
    tables: list[TableLookups] = []  # at most 16
    landscape: list[list[float]] = []  # rows of [emb_ratio, mean_ms, p99_ms, low_ms, high_ms]
    policy_digest: str = ""  # of the learned policy in force at the last decision


class DecisionRecord(msgspec.Struct, frozen=True, kw_only=True, tag="decision"):
    """One decision of a node's controller: what it saw, proposed, and what the guard did."""

    name: str
    at_unix_ns: int
    seq: int
    controller: str
    mode: Mode
    emb_ratio_before: float
    emb_ratio_proposed: float
    emb_ratio_granted: float
    reason: str
    guard_reasons: list[str]
    shadow_emb_ratio: float | None
    features: dict[str, float]
    layers: dict[str, float]
    decision_us: float
    feature_shares: dict[str, float] = {}  # gradient x (input - mean); learned policies only
    regret_ms: float = 0.0  # what following the shadow would have saved since the policy began


# --- link between an agent and the control plane (WebSocket, msgpack) --------------------


class Hello(msgspec.Struct, frozen=True, kw_only=True, tag="hello"):
    """First frame of an agent: who it is and which generation it acts upon."""

    name: str
    wire_version: int
    observed_generation: int
    profile: str
    device: str
    emulated: bool
    infer_url: str
    started_unix_ns: int


class SpecCommand(msgspec.Struct, frozen=True, kw_only=True, tag="spec"):
    """Control plane to agent: the whole desired state, fenced by its generation."""

    command_id: str
    spec: NodeSpec


class Ack(msgspec.Struct, frozen=True, kw_only=True, tag="ack"):
    """Agent to control plane: a command was applied, or refused by `error_code`."""

    command_id: str
    observed_generation: int
    accepted: bool
    error_code: str = ""
    detail: str = ""


class EventFrame(msgspec.Struct, frozen=True, kw_only=True, tag="event"):
    """Agent to control plane: something worth a line in the event feed."""

    kind: str
    at_unix_ns: int
    detail: dict[str, str]


AgentFrame = Hello | NodeTelemetry | DecisionRecord | Ack | EventFrame
ControlFrame = SpecCommand

# --- router and nodes ---------------------------------------------------------------------


class ResidencySnapshot(msgspec.Struct, frozen=True, kw_only=True, tag="snapshot"):
    """Everything a node holds, as of `seq`; parallel lists."""

    seq: int
    user_keys: list[int]
    cached_tokens: list[int]


class ResidencyDelta(msgspec.Struct, frozen=True, kw_only=True, tag="delta"):
    """Changes `seq_first..seq`; zero tokens mean the prefix is gone."""

    seq_first: int
    seq: int
    user_keys: list[int]
    cached_tokens: list[int]


class NodeLoad(msgspec.Struct, frozen=True, kw_only=True, tag="load"):
    """What the router needs to predict milliseconds on this node; sent five times a second."""

    at_unix_ns: int
    phase: Phase
    queued_ms: float  # predicted work of the queue and the batch in flight
    queue_depth: int
    emb_hit_ratio: float
    ms_fixed: float
    ms_per_missing_row: float
    ms_per_token: float  # prefill, linear term
    ms_per_token_squared: float  # prefill, quadratic term
    ms_per_candidate: float
    refill_backlog_bytes: int
    kv_tokens_capacity: int
    kv_tokens_used: int
    served_total: int
    kv_hit_compute_ratio: float = 0.0  # share of its recompute that a resident prefix still costs
    model_version: str = ""  # of the prefixes held and the answers given; empty: not told
    profile: str = ""  # nodes of one profile compute alike; empty: not told


class UsersSeen(msgspec.Struct, frozen=True, kw_only=True, tag="seen"):
    """Users a node served since it last told, by whichever router; parallel lists. Ages bring the clocks of both sides together."""

    user_keys: list[int]
    ages_ms: list[int]


ResidencyFrame = ResidencySnapshot | ResidencyDelta | NodeLoad | UsersSeen


class ClusterReuse(msgspec.Struct, frozen=True, kw_only=True, tag="reuse"):
    """Sampled reuse-distance histogram of the cluster's user stream, by one router.

    `edges_tokens` has one entry more than each histogram; a last, open bin holds references
    beyond the last edge and cold ones. Histograms are per second (decayed), already scaled
    by the sampling rate. `tokens_per_second[i]` sums the reusable prefix tokens of re-references
    at distance bin i, `tokens_squared_per_second` their squares, so that a node can price them
    with its own prefill coefficients.
    """

    router_id: str
    at_unix_ns: int
    nodes: int
    requests_per_second: float
    sampling_rate: float
    edges_tokens: list[float]
    references_per_second: list[float]
    tokens_per_second: list[float]
    tokens_squared_per_second: list[float]


class NodeAddress(msgspec.Struct, frozen=True, kw_only=True):
    """Where a node listens."""

    name: str
    host: str
    port: int


class FleetFile(msgspec.Struct, frozen=True, kw_only=True):
    """`.helm/fleet.json` (mode 0600): the fleet of this machine, cached for a life without a control plane."""

    cluster_salt_hex: str
    fleet_key: str  # router and nodes authenticate to each other and to local tools with it
    router: NodeAddress
    nodes: list[NodeAddress]
    profile: str
    web_url: str = ""


class ModelChoice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of a node's own `PUT /v1/model`: take up a version that lies in its state folder, another feature schema, or both."""

    version: str | None = None
    feature_schema: str | None = None


class ControlRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of a node's own `PUT /v1/control`: override with a TTL, pin, or release (`auto`), with or without another pool size."""

    mode: Mode
    emb_ratio: float | None = None
    ttl_ms: int | None = None
    reason: str = ""
    pool_bytes: int | None = None  # None: as it is
