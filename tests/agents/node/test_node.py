"""A node of eleven pages, told the time: what it books, moves, obeys and reports."""

import msgspec
import numpy as np
import pytest

from agents.node.batch import BatchPlan, MissReason, StageTimings
from agents.node.node import Effects, Node, NodeConfig, TickInputs
from agents.node.report import BodyFacts
from agents.pool.state import Counter
from agents.profiles import Profile, load_profile
from agents.wire.errors import ErrorCode, WireError
from agents.wire.events import EventKind
from agents.wire.messages import ControlRequest, GuardRails, Mode, NodeSpec, Phase, ResidencyDelta, ResidencySnapshot, VersionPart
from tests.agents.node.batches import batch_of

SECOND = 1_000_000_000
QUIET = TickInputs(0, 0.0, 0, 0)
FACTS = BodyFacts(7, 1, Phase.READY, 0, 0, 0, 0, 0.0, "cpu", True, "1", 0)


def tiny_profile() -> Profile:
    """Ten pages of four rows or two tokens; a page may move every second."""
    demo = load_profile("cpu-demo")
    return msgspec.structs.replace(
        demo, pool_bytes=10 * 1024, page_bytes=1024, row_bytes=256, kv_token_bytes=512, rows=100_000, move_ratio_per_second=0.1
    )


def tiny_node(controller: str = "static-0.50", **changes: object) -> Node:
    config = NodeConfig(controller=controller, admission="none", guard_rails=GuardRails(dwell_seconds_min=0.0), **changes)  # type: ignore[arg-type]
    return Node("node-0", tiny_profile(), config)


def serve(node: Node, now_ns: int, requests: list[tuple[int, int]], **more: object) -> BatchPlan:
    batch = batch_of(requests, block_tokens=2, **more)  # type: ignore[arg-type]
    ticket, plan = node.admit(now_ns, batch)
    count = len(requests)
    node.complete(now_ns, ticket, StageTimings(np.zeros(count), 1.0, 0.0, np.full(count, 2.0), 3.0))
    node.ledger.check()
    return plan


def tick(node: Node, now_ns: int) -> Effects:
    effects = node.tick(now_ns, QUIET)
    node.moves_done(now_ns, effects.serial)
    node.ledger.check()
    return effects


def test_a_second_request_reuses_the_full_blocks_of_the_first() -> None:
    node = tiny_node()
    first = serve(node, 1, [(5, 5)])
    assert first.cached_tokens.tolist() == [0]
    assert first.miss_reasons.tolist() == [MissReason.COLD]
    assert len(first.write_pages) == 2  # five tokens: two full blocks of two
    second = serve(node, 2, [(5, 7)])
    assert second.cached_tokens.tolist() == [4]
    assert second.read_pages.tolist() == first.write_pages.tolist()
    assert len(second.write_pages) == 1


def test_a_changed_history_is_invalidated_and_replaced() -> None:
    node = tiny_node()
    serve(node, 1, [(5, 4)])
    plan = serve(node, 2, [(5, 4)], version=1)
    assert plan.miss_reasons.tolist() == [MissReason.INVALIDATED_BY_VERSION]
    assert serve(node, 3, [(5, 4)], version=1).cached_tokens.tolist() == [4]


def test_rows_shared_by_a_batch_are_looked_up_once_and_new_tokens_come_before_candidates() -> None:
    node = tiny_node()
    plan = serve(node, 1, [(5, 2), (6, 2)], candidates=(1, 2))
    assert sorted(plan.rows.tolist()) == sorted({1, 2, 5000, 5007, 6000, 6007})
    wanted = plan.rows[plan.row_index[plan.row_offsets[1] : plan.row_offsets[2]]]
    assert wanted.tolist() == [6000, 6007, 1, 2]
    assert len(plan.missing) == 6
    assert (plan.insert_slots >= 0).all()
    again = serve(node, 2, [(7, 2)], candidates=(1, 2))
    assert (again.row_slots[np.isin(again.rows, [1, 2])] >= 0).all()


def test_by_second_request_a_user_is_kept_from_the_second_request_within_the_window() -> None:
    node = Node("node-0", tiny_profile(), NodeConfig(controller="static-0.50", admission="second-request"))
    for user in range(10, 15):  # while there is room nothing gives way
        serve(node, 0, [(user, 2)])
    assert node.state.counters[Counter.KV_FREE_PAGES] == 0
    assert len(serve(node, 1, [(5, 4)]).write_pages) == 0
    late = serve(node, 62 * SECOND, [(5, 4)])
    assert (len(late.write_pages), late.miss_reasons.tolist()) == (0, [MissReason.NOT_ADMITTED])
    assert len(serve(node, 90 * SECOND, [(5, 4)]).write_pages) == 2
    assert serve(node, 91 * SECOND, [(5, 4)]).miss_reasons.tolist() == [MissReason.HIT]


def test_as_shipped_a_first_request_is_kept_too() -> None:
    node = Node("node-0", tiny_profile(), NodeConfig(controller="static-0.50", admission="shipped"))
    assert len(serve(node, 0, [(5, 4)]).write_pages) == 2
    assert serve(node, 1, [(5, 4)]).miss_reasons.tolist() == [MissReason.HIT]


def test_the_clusters_sighting_admits_a_user_this_node_has_never_seen() -> None:
    node = Node("node-0", tiny_profile(), NodeConfig(controller="static-0.50", admission="shipped"))
    plan = serve(node, 0, [(5, 4)], gap_ns=SECOND, elsewhere=True)
    assert plan.miss_reasons.tolist() == [MissReason.ROUTED_AWAY]
    assert len(plan.write_pages) == 2


def test_nobody_is_served_and_never_cached() -> None:
    node = tiny_node()
    for now_ns in (1, 2):
        plan = serve(node, now_ns, [(0, 4)])
        assert (len(plan.write_pages), plan.cached_tokens.tolist(), plan.miss_reasons.tolist()) == (0, [0], [MissReason.COLD])


def test_a_prefix_bigger_than_the_cache_keeps_what_fits() -> None:
    node = tiny_node()
    plan = serve(node, 1, [(5, 40)])
    assert len(plan.write_pages) == 5
    assert serve(node, 2, [(5, 40)]).cached_tokens.tolist() == [10]


def test_an_aborted_batch_leaves_nothing_that_was_never_written() -> None:
    node = tiny_node()
    serve(node, 1, [(5, 4)])
    ticket, plan = node.admit(2, batch_of([(5, 6), (6, 4)], block_tokens=2, candidates=(50, 51)))
    assert len(plan.write_pages) == 3
    node.abort(2, ticket)
    node.ledger.check()
    after = serve(node, 3, [(5, 6)], candidates=(50, 51))
    assert after.cached_tokens.tolist() == [4]
    assert set(after.rows[after.missing].tolist()) >= {50, 51}
    assert serve(node, 4, [(6, 4)]).miss_reasons.tolist() == [MissReason.NOT_ADMITTED]


def test_an_override_moves_pages_one_per_second_and_expires_by_the_nodes_own_clock() -> None:
    node = tiny_node()
    tick(node, 0)
    node.control(0, ControlRequest(mode=Mode.OVERRIDE, emb_ratio=0.7, ttl_ms=5_000, reason="night test"))
    ratios = []
    for second in range(1, 5):
        tick(node, second * SECOND)
        ratios.append(round(node.ledger.emb_ratio, 2))
    assert ratios == [0.6, 0.7, 0.7, 0.7]
    assert node.mode is Mode.OVERRIDE
    events = tick(node, 5 * SECOND).events
    assert node.mode is Mode.AUTO
    assert EventKind.OVERRIDE_EXPIRED in [kind for kind, _ in events]
    for second in range(6, 16):
        tick(node, second * SECOND)
    assert round(node.ledger.emb_ratio, 2) == 0.5


def test_shrinking_emb_waits_for_the_devices_copies_before_kv_gets_the_page() -> None:
    node = tiny_node()
    serve(node, 1, [(5, 4)], candidates=tuple(range(100, 110)))
    node.control(2, ControlRequest(mode=Mode.PIN, emb_ratio=0.4, reason="hold"))
    node.tick(SECOND, QUIET)
    effects = node.tick(2 * SECOND, QUIET)
    assert node.ledger.shares() == (4, 5, 1, 0)
    node.moves_done(2 * SECOND, effects.serial)
    assert node.ledger.shares() == (4, 6, 0, 0)


@pytest.mark.parametrize(
    ("request_", "code", "field"),
    [
        (ControlRequest(mode=Mode.OVERRIDE, emb_ratio=0.95, ttl_ms=5000, reason="x"), ErrorCode.OUTSIDE_GUARD_RAILS, "emb_ratio"),
        (ControlRequest(mode=Mode.OVERRIDE, emb_ratio=float("nan"), ttl_ms=5000, reason="x"), ErrorCode.INVALID_REQUEST, "emb_ratio"),
        (ControlRequest(mode=Mode.OVERRIDE, emb_ratio=None, ttl_ms=5000, reason="x"), ErrorCode.INVALID_REQUEST, "emb_ratio"),
        (ControlRequest(mode=Mode.OVERRIDE, emb_ratio=0.5, ttl_ms=0, reason="x"), ErrorCode.INVALID_REQUEST, "ttl_ms"),
        (ControlRequest(mode=Mode.OVERRIDE, emb_ratio=0.5, reason="x"), ErrorCode.INVALID_REQUEST, "ttl_ms"),
        (ControlRequest(mode=Mode.OVERRIDE, emb_ratio=0.5, ttl_ms=10**9, reason="x"), ErrorCode.INVALID_REQUEST, "ttl_ms"),
        (ControlRequest(mode=Mode.OVERRIDE, emb_ratio=0.5, ttl_ms=5000, reason="  "), ErrorCode.INVALID_REQUEST, "reason"),
        (ControlRequest(mode=Mode.PIN, emb_ratio=0.5, ttl_ms=5000, reason="x"), ErrorCode.INVALID_REQUEST, "ttl_ms"),
        (ControlRequest(mode=Mode.RECOVERY, emb_ratio=0.5, reason="x"), ErrorCode.INVALID_REQUEST, "mode"),
    ],
)
def test_a_bad_command_is_refused_by_name_and_changes_nothing(request_: ControlRequest, code: ErrorCode, field: str) -> None:
    node = tiny_node()
    with pytest.raises(WireError) as refused:
        node.control(0, request_)
    assert (refused.value.code, refused.value.field) == (code, field)
    assert node.mode is Mode.AUTO


def test_an_older_generation_is_refused() -> None:
    node = tiny_node()
    node.apply(0, NodeSpec(generation=3))
    with pytest.raises(WireError) as refused:
        node.apply(0, NodeSpec(generation=2))
    assert refused.value.code is ErrorCode.STALE_GENERATION
    assert node.desired.generation == 3


def test_residency_is_told_as_a_delta_and_as_a_snapshot_to_a_stranger() -> None:
    node = tiny_node()
    assert node.residency_since(0) is None
    serve(node, 1, [(5, 4)])
    delta = node.residency_since(0)
    assert isinstance(delta, ResidencyDelta)
    assert (delta.user_keys, delta.cached_tokens) == ([5], [4])
    assert node.residency_since(delta.seq) is None
    stranger = node.residency_since(10**9)
    assert isinstance(stranger, ResidencySnapshot)
    assert (stranger.user_keys, stranger.cached_tokens) == ([5], [4])


def test_a_version_flip_voids_every_prefix_and_says_so() -> None:
    node = tiny_node()
    serve(node, 1, [(5, 4)])
    node.version_flip(2)
    node.ledger.check()
    assert serve(node, 3, [(5, 4)]).miss_reasons.tolist() == [MissReason.INVALIDATED_BY_VERSION]


def test_another_feature_schema_voids_prefixes_and_leaves_the_rows_of_the_model() -> None:
    node = tiny_node()
    serve(node, 1, [(5, 4)], candidates=(1, 2))
    node.version_flip(2, VersionPart.FEATURES)
    node.ledger.check()
    again = serve(node, 3, [(5, 4)], candidates=(1, 2))
    assert again.miss_reasons.tolist() == [MissReason.INVALIDATED_BY_VERSION]
    assert len(again.missing) == 0


@pytest.mark.parametrize("part", VersionPart)
def test_either_version_alone_voids_a_prefix_that_a_batch_is_reading(part: VersionPart) -> None:
    node = tiny_node()
    serve(node, 1, [(5, 4)])
    ticket, _ = node.admit(2, batch_of([(5, 4)], block_tokens=2))
    node.version_flip(2, part)
    node.complete(3, ticket, StageTimings(np.zeros(1), 1.0, 0.0, np.ones(1), 2.0))
    assert serve(node, 4, [(5, 4)]).miss_reasons.tolist() == [MissReason.INVALIDATED_BY_VERSION]


def test_a_flip_of_one_part_and_back_of_none_is_not_the_old_pair() -> None:
    node = tiny_node()
    serve(node, 1, [(5, 4)])
    for part in (VersionPart.FEATURES, VersionPart.MODEL):
        node.version_flip(2, part)
    assert [int(node.state.header[0][name]) for name in ("model_version", "feature_version")] == [1, 1]
    assert serve(node, 3, [(5, 4)]).cached_tokens.tolist() == [0]


def large_node() -> Node:
    """Forty pages, so that a floor of a tenth leaves room to shrink."""
    profile = msgspec.structs.replace(tiny_profile(), pool_bytes=40 * 1024)
    config = NodeConfig(controller="static-0.50", admission="none", guard_rails=GuardRails(dwell_seconds_min=0.0))
    return Node("node-0", profile, config)


def test_a_pool_shrinks_and_grows_by_command_with_its_ratio_kept_and_never_below_the_floors() -> None:
    node = large_node()
    node.apply(0, NodeSpec(generation=1, pool_bytes=20 * 1024))
    sizes = []
    for step in range(40):
        serve(node, step * SECOND, [(step % 5, 6)])
        tick(node, step * SECOND)
        shares = node.ledger.shares()
        assert min(shares.emb, shares.kv + shares.migrating) >= 2
        sizes.append(40 - shares.free)
    assert sizes == sorted(sizes, reverse=True)
    assert (sizes[-1], node.emb_pages) == (20, 10)
    assert node.telemetry(40 * SECOND, FACTS).pool_bytes == 20 * 1024
    node.apply(40 * SECOND, NodeSpec(generation=2))
    for step in range(40, 80):
        tick(node, step * SECOND)
    assert (node.ledger.shares().free, node.emb_pages) == (0, 20)


@pytest.mark.parametrize("pages", [0, 9, 41, -1])
def test_a_pool_too_small_for_the_floors_or_larger_than_the_profile_is_refused_and_changes_nothing(pages: int) -> None:
    node = large_node()
    before = node.desired
    with pytest.raises(WireError, match=r"must be 10240 to 40960") as caught:
        node.apply(0, NodeSpec(generation=1, pool_bytes=pages * 1024))
    assert (caught.value.code, caught.value.field) == (ErrorCode.INVALID_REQUEST, "pool_bytes")
    assert node.desired == before


def test_a_local_command_keeps_the_size_of_the_pool_unless_it_names_one() -> None:
    node = large_node()
    node.control(0, ControlRequest(mode=Mode.AUTO, pool_bytes=30 * 1024))
    node.control(0, ControlRequest(mode=Mode.PIN, emb_ratio=0.4, reason="test"))
    assert node.desired.pool_bytes == 30 * 1024


def test_a_report_names_the_profile_because_nodes_of_one_compute_alike() -> None:
    node = tiny_node()
    assert node.load(1, 0, 0.0, Phase.READY, 1).profile == node.profile.name


def test_telemetry_tells_look_ups_by_table_and_what_prefixes_are_a_function_of() -> None:
    node = tiny_node()
    node.lay_out_tables((0, 50_000))
    serve(node, 1, [(5, 1)], candidates=(1, 60_000, 60_001))
    serve(node, 2, [(6, 1)], candidates=(1, 60_000, 60_002))
    facts = FACTS._replace(feature_schema="3", tables=("items", "shops"))
    told = node.telemetry(3, facts)
    assert (told.model_version, told.feature_schema) == ("1", "3")
    assert [(table.name, table.lookups_total, table.hits_total) for table in told.tables] == [("items", 4, 1), ("shops", 4, 1)]


def test_a_version_flip_leaves_no_row_of_the_old_tables() -> None:
    node = tiny_node()
    assert len(serve(node, 1, [(5, 4)], candidates=(1, 2)).missing) == 6
    assert len(serve(node, 2, [(6, 1)], candidates=(1, 2)).missing) == 1
    node.version_flip(3)
    node.ledger.check()
    assert len(serve(node, 4, [(6, 1)], candidates=(1, 2)).missing) == 3


def test_a_version_flip_in_mid_flight_leaves_nothing_of_the_old_version_to_find() -> None:
    node = tiny_node()
    serve(node, 1, [(5, 4)])
    ticket, plan = node.admit(2, batch_of([(5, 4)], block_tokens=2))
    assert plan.cached_tokens.tolist() == [4]
    node.version_flip(2)
    node.complete(3, ticket, StageTimings(np.zeros(1), 1.0, 0.0, np.ones(1), 2.0))
    node.ledger.check()
    assert serve(node, 4, [(5, 4)]).miss_reasons.tolist() == [MissReason.INVALIDATED_BY_VERSION]
    assert serve(node, 5, [(5, 4)]).cached_tokens.tolist() == [4]


def test_a_node_predicts_its_latency_at_every_ratio_once_it_has_served_and_decided() -> None:
    node = tiny_node()
    facts = BodyFacts(7, 1, Phase.READY, 0, 0, 0, 0, 0.0, "cpu", True, "1", 0)
    assert node.telemetry(0, facts).landscape == []
    for second in range(20):
        serve(node, second * SECOND, [(second % 3, 4)])
        tick(node, second * SECOND)
    rows = node.telemetry(20 * SECOND, facts).landscape
    assert [row[0] for row in rows] == pytest.approx(np.linspace(0.1, 0.9, 17))
    for _, mean_ms, p99_ms, low_ms, high_ms in rows:
        assert 0.0 < low_ms <= mean_ms <= high_ms
        assert p99_ms >= mean_ms


def test_telemetry_reports_the_ledgers_share_and_null_for_what_is_not_known() -> None:
    node = tiny_node()
    before = node.telemetry(0, FACTS)
    assert (before.emb_ratio, before.emb_hit_ratio, before.latency_ms_p50, before.latency_ms_p99) == (0.5, None, None, None)
    tick(node, 0)
    serve(node, 1, [(5, 4)])
    tick(node, 2 * SECOND)
    after = node.telemetry(2 * SECOND, FACTS)
    assert after.emb_ratio == node.ledger.shares().emb / 10
    assert after.kv_hit_ratio == 0.0
    assert after.latency_ms_p99 is None  # one request is no percentile
    assert after.miss_reasons["cold"] == 1
    assert msgspec.json.decode(msgspec.json.encode(after))["name"] == "node-0"
