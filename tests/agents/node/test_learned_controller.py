"""A node that is decided for by the three layers: what it records, says and obeys."""

import numpy as np
import pytest

from agents.artifacts.policy_file import ArtefactError
from agents.node.node import Node
from agents.node.report import PolicyFacts
from agents.wire.errors import WireError
from agents.wire.events import EventKind
from agents.wire.messages import Condition, ControllerMode, Mode, NodeSpec
from tests.agents.controller.policies import card, random_file
from tests.agents.node.test_node import FACTS, SECOND, serve, tick, tiny_node


def lived(node: Node, seconds: range) -> list[tuple[EventKind, dict[str, str]]]:
    """Requests and ticks, one a second."""
    events = []
    for second in seconds:
        serve(node, second * SECOND, [(second % 5 + 1, 6)])
        events += tick(node, second * SECOND + 1).events
    return events


def conditions(node: Node, now_ns: int) -> dict[str, Condition]:
    return {condition.type: condition for condition in node.telemetry(now_ns, FACTS).conditions}


def test_the_record_tells_the_layers_the_shadow_and_the_features_shares() -> None:
    node = tiny_node("helm")
    file = random_file(card())
    assert node.use_policy(file.weights, file.card) == file.digest
    lived(node, range(1, 9))
    record = node.decisions(1)[0]
    assert set(record.layers) == {"base", "residual", "recovery", "phase", "frozen"}
    assert record.shadow_emb_ratio is not None
    assert set(record.feature_shares) == set(card().features)
    assert all(np.isfinite(share) for share in record.feature_shares.values())
    assert record.controller == "helm"


def test_without_a_policy_it_says_that_a_rule_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agents.controller.registry.shipped_policy", lambda name: None)
    node = tiny_node("helm")
    lived(node, range(1, 4))
    found = conditions(node, 4 * SECOND)
    missing = found["PolicyMissing"]
    assert (missing.status, missing.reason, missing.message) == ("True", "NoArtefact", "base b5")
    assert (found["Recovering"].status, found["Recovering"].reason) == ("False", "Calm")
    assert found["PolicyDemoted"].status == "False"


def test_a_refused_policy_changes_nothing_and_a_node_that_values_hits_takes_none() -> None:
    node, file = tiny_node("helm"), random_file(card())
    node.use_policy(file.weights, file.card)
    with pytest.raises(ArtefactError):
        node.use_policy(file.weights[:100], file.card)
    lived(node, range(1, 3))
    assert conditions(node, 3 * SECOND)["PolicyMissing"].status == "False"
    with pytest.raises(WireError, match="takes no policy"):
        tiny_node("b5-hits").use_policy(file.weights, file.card)


def test_features_that_are_not_known_yet_are_a_condition_by_name() -> None:
    node, file = tiny_node("helm"), random_file(card())
    node.use_policy(file.weights, file.card)
    tick(node, SECOND)
    missing = conditions(node, SECOND)["SignalMissing"]
    assert (missing.status, missing.reason) == ("True", "FeaturesNotFinite")
    assert "kv_hit_ratio" in missing.message


def test_advisory_decides_and_records_but_does_not_move_and_off_does_not_decide() -> None:
    for mode, reason in ((ControllerMode.ADVISORY, None), (ControllerMode.OFF, "off")):
        node = tiny_node("static-0.80")
        node.apply(0, NodeSpec(generation=1, controller=mode))
        lived(node, range(1, 8))
        record = node.decisions(1)[0]
        assert record.emb_ratio_granted == 0.5
        assert record.guard_reasons == ["no_proposal"]
        assert record.reason == (reason or "static")
        assert record.emb_ratio_proposed == (0.8 if reason is None else 0.5)


def test_a_surge_shows_as_mode_and_event_and_caps_the_refill() -> None:
    node = tiny_node("helm-recovery")
    lived(node, range(1, 60))
    events = []
    for second in range(60, 64):
        for extra in range(40):
            serve(node, second * SECOND + extra, [(extra + 1, 6)])
        events += tick(node, second * SECOND + 50).events
    assert EventKind.RECOVERY_STARTED in [kind for kind, _ in events]
    assert node.mode is Mode.RECOVERY
    assert node.telemetry(64 * SECOND, FACTS).mode is Mode.RECOVERY
    assert conditions(node, 64 * SECOND)["Recovering"].reason == "Surge"
    events = lived(node, range(64, 160))
    assert EventKind.RECOVERY_ENDED in [kind for kind, _ in events]
    assert node.mode is Mode.AUTO


def test_a_node_with_a_rule_is_handed_to_a_policy_and_back_without_missing_a_decision() -> None:
    node, file = tiny_node("b5"), random_file(card())
    lived(node, range(1, 12))
    assert node.use_policy(file.weights, file.card) == file.digest
    lived(node, range(12, 24))
    told = node.telemetry(24 * SECOND, FACTS)
    assert (told.controller, told.policy_digest) == ("helm", file.digest)
    assert "PolicyMissing" in conditions(node, 24 * SECOND)
    node.use_own_controller()
    lived(node, range(24, 36))
    told = node.telemetry(36 * SECOND, FACTS)
    assert (told.controller, told.policy_digest) == ("b5", "")
    assert "PolicyMissing" not in conditions(node, 36 * SECOND)
    records = node.decisions(512)[::-1]
    assert [record.seq for record in records] == list(range(1, len(records) + 1))
    assert {record.controller for record in records} == {"b5", "helm"}


def test_a_mode_waits_for_the_policy_that_it_was_said_of() -> None:
    """An advisory policy does not begin to move the node because another one was made active and cannot be fetched."""
    node, first, second = tiny_node("static-0.80"), random_file(card()), random_file(card(), 1)
    node.apply(0, NodeSpec(generation=1, controller=ControllerMode.ADVISORY, policy_digest=first.digest))
    assert node.controller_mode is ControllerMode.ADVISORY
    node.use_policy(first.weights, first.card)
    node.apply(0, NodeSpec(generation=2, controller=ControllerMode.ACTIVE, policy_digest=second.digest))
    lived(node, range(1, 8))
    assert (node.controller_mode, node.decisions(1)[0].guard_reasons) == (ControllerMode.ADVISORY, ["no_proposal"])
    node.use_policy(second.weights, second.card)
    lived(node, range(8, 10))
    assert (node.controller_mode, "no_proposal" in node.decisions(1)[0].guard_reasons) == (ControllerMode.ACTIVE, False)
    node.apply(0, NodeSpec(generation=3, controller=ControllerMode.ADVISORY, policy_digest=first.digest))
    assert node.controller_mode is ControllerMode.ADVISORY  # the milder of two at once


def test_a_demoted_policy_is_trusted_anew_when_somebody_names_it_again_and_only_then() -> None:
    node, file = tiny_node("helm"), random_file(card())
    node.use_policy(file.weights, file.card)
    node.apply(0, NodeSpec(generation=1, policy_digest=file.digest, policy_generation=1))
    node.demote()
    lived(node, range(1, 3))
    assert (node.demoted_policy, node.mode, node.decisions(1)[0].feature_shares) == (file.digest, Mode.DEMOTED, {})
    node.apply(0, NodeSpec(generation=2, policy_digest=file.digest, policy_generation=1))  # another command, of a hold
    assert node.demoted_policy == file.digest
    node.apply(0, NodeSpec(generation=3, policy_digest=file.digest, policy_generation=3))
    lived(node, range(3, 5))
    assert (node.demoted_policy, node.mode) == (None, Mode.AUTO)


def test_a_policy_does_not_answer_for_what_a_pin_costs() -> None:
    node, file = tiny_node("helm"), random_file(card())
    node.use_policy(file.weights, file.card)
    node.apply(0, NodeSpec(generation=1, mode=Mode.PIN, emb_ratio=0.2, reason="a test", policy_digest=file.digest))
    lived(node, range(1, 120))
    assert node.decisions(1)[0].regret_ms == 0.0


def test_a_policy_of_the_other_variant_brings_its_own_period_and_name() -> None:
    node, file = tiny_node("paper"), random_file(card())
    lived(node, range(1, 12))
    slow = len(node.decisions(512))
    node.use_policy(file.weights, file.card)
    lived(node, range(12, 23))
    assert node.telemetry(23 * SECOND, FACTS).controller == "helm"
    assert len(node.decisions(512)) - slow > 2 * slow


def test_whether_the_policy_applied_is_a_condition_only_once_one_was_asked_for() -> None:
    node = tiny_node("b5")
    assert "PolicyApplied" not in conditions(node, SECOND)
    facts = FACTS._replace(policy=PolicyFacts(False, "FetchFailed", "policy ab: away"))
    found = {condition.type: condition for condition in node.telemetry(SECOND, facts).conditions}["PolicyApplied"]
    assert (found.status, found.reason, found.message) == ("False", "FetchFailed", "policy ab: away")
