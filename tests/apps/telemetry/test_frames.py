"""What a node says of a controller that misbehaves is still taken, and tells of it."""

import math
from typing import Any

import msgspec
import pytest

from agents.controller.explain import explain
from agents.controller.interface import Observation, Proposal
from agents.controller.landscape import LandscapePoint
from agents.controller.status import ControllerStatus
from agents.node.node import Node, NodeConfig
from agents.wire.messages import ControllerMode, DecisionRecord, NodeSpec, NodeTelemetry
from apps.telemetry.frames import FrameError, decode
from tests.agents.node.test_node import FACTS, SECOND, serve, tick, tiny_profile
from tests.apps.frames import decision, telemetry

NOT_FINITE = [math.nan, math.inf, -math.inf]


class Stranger:
    """A method of somebody else's that proposes whatever it is given."""

    name = "stranger"
    period_ns = SECOND
    uses_cluster_reuse = False

    def __init__(self, proposed: float) -> None:
        self.proposed = proposed

    def propose(self, observation: Observation) -> Proposal:
        return Proposal(self.proposed, "whim", {"whim": self.proposed, "kept": 0.25})


def strange_node(proposed: float) -> Node:
    return Node("node-0", tiny_profile(), NodeConfig(emb_ratio_start=0.5, admission="none"), controller=Stranger(proposed))


def decided(node: Node) -> DecisionRecord:
    serve(node, SECOND, [(1, 6)])
    tick(node, SECOND + 1)
    return node.decisions(1)[0]


def received(frame: Any) -> Any:
    """As the control plane reads it."""
    return decode(msgspec.msgpack.encode(frame))


def test_a_frame_with_a_number_that_is_not_finite_is_refused_by_name() -> None:
    for frame in (telemetry(utilisation=math.nan), msgspec.structs.replace(decision(), feature_shares={"a": math.inf})):
        with pytest.raises(FrameError, match="not a finite number"):
            received(frame)


@pytest.mark.parametrize("proposed", NOT_FINITE)
def test_a_proposal_that_is_no_number_reaches_the_control_plane_as_the_present_ratio_with_the_guards_reason(proposed: float) -> None:
    record = received(decided(strange_node(proposed)))
    assert (record.emb_ratio_proposed, record.emb_ratio_granted) == (record.emb_ratio_before, 0.5)
    assert (record.guard_reasons, record.reason, record.layers) == (["proposal_not_finite"], "whim_not_finite", {"kept": 0.25})
    lines = explain(msgspec.to_builtins(record))
    assert "  guard     the proposal was not a number: the last good target stays" in lines
    assert "  proposed  0.500, because: whim not finite" in lines


def test_the_record_of_an_advisory_controller_says_so_too_although_the_guard_does_not_hear_it() -> None:
    node = strange_node(math.nan)
    node.apply(0, NodeSpec(generation=1, controller=ControllerMode.ADVISORY))
    record = received(decided(node))
    assert (record.guard_reasons, record.reason) == (["no_proposal"], "whim_not_finite")


@pytest.mark.parametrize("proposed", NOT_FINITE)
def test_telemetry_has_no_recommendation_where_there_is_none(proposed: float) -> None:
    node = strange_node(proposed)
    decided(node)
    frame = received(node.telemetry(2 * SECOND, FACTS))
    assert isinstance(frame, NodeTelemetry)
    assert frame.recommended_emb_ratio is None
    assert [condition.reason for condition in frame.conditions if condition.type == "SignalMissing"] == ["ProposalNotFinite"]


@pytest.mark.parametrize(("proposed", "recommended"), [(1.4, 1.0), (-0.2, 0.0), (0.6, 0.6)])
def test_a_proposal_outside_the_pool_does_not_cost_the_telemetry(proposed: float, recommended: float) -> None:
    node = strange_node(proposed)
    assert received(decided(node)).emb_ratio_proposed == proposed
    assert received(node.telemetry(2 * SECOND, FACTS)).recommended_emb_ratio == recommended


def test_shares_and_regret_that_are_not_finite_are_left_out() -> None:
    node = strange_node(0.5)
    reporter, limited = node._reporter, node._guard.limit(0, node._guard_inputs(0, node.observe(0), Proposal(0.5, "whim", {})))
    shares = {"emb_ratio": 0.01, "arrivals_log": math.nan, "surge_log": -math.inf}
    status = ControllerStatus(regret_ms=math.inf)
    record = received(reporter.decision(0, node.mode, node.observe(0), Proposal(0.5, "whim", {}), limited, status, shares))
    assert (record.feature_shares, record.regret_ms) == ({"emb_ratio": 0.01}, 0.0)


def test_a_point_of_the_landscape_that_is_not_finite_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    known, unknown = LandscapePoint(0.5, 3.0, 9.0, 2.0, 4.0), LandscapePoint(0.6, 3.0, 9.0, math.nan, math.nan)
    monkeypatch.setattr("agents.node.node.landscape", lambda *_: [known, unknown])
    node = strange_node(0.5)
    decided(node)
    assert received(node.telemetry(2 * SECOND, FACTS)).landscape == [list(known)]
