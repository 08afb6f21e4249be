from typing import Any

from agents.controller.explain import explain
from agents.controller.guard import REASONS


def record(**changes: Any) -> dict[str, Any]:
    return {
        "name": "node-0",
        "seq": 7,
        "controller": "helm",
        "mode": "auto",
        "emb_ratio_before": 0.5,
        "emb_ratio_proposed": 0.62,
        "emb_ratio_granted": 0.6,
        "reason": "policy",
        "guard_reasons": ["largest_step"],
        "shadow_emb_ratio": 0.58,
        "regret_ms": 12.4,
        "features": {"latency_ms_p99": 43.21, "slo_ms": 60.0, "utilisation": 0.75, "now_ns": 5.0},
        "layers": {"base": 0.61, "residual": 0.01, "recovery": 0.0, "phase": 0.0, "frozen": 0.0},
        "feature_shares": {"a": 0.001, "b": -0.02, "c": 0.003, "d": 0.0, "e": 0.004, "f": 0.0005},
    } | changes


def test_a_learned_decision_is_told_layer_by_layer() -> None:
    assert explain(record()) == [
        "node-0, decision 7 of helm (auto): EMB 0.500, target 0.600",
        "  base      wants 0.610 (policy)",
        "  residual  +0.010 (learning)",
        "  recovery  calm",
        "  proposed  0.620",
        "  guard     cut to the largest step",
        "  shadow    the best rule would go to 0.580; following it would have saved 12 ms so far",
        "  features  gradient x (input - mean): b -0.0200, e +0.0040, c +0.0030, a +0.0010, f +0.0005",
        "  seen      P99 43.2 ms, SLO 60 ms, utilisation 0.75",
    ]


def test_a_surge_says_what_was_done_instead_and_a_frozen_adapter_says_so() -> None:
    layers = {"base": 0.61, "residual": 0.01, "recovery": -0.22, "phase": 1.0, "frozen": 1.0}
    lines = explain(record(layers=layers, emb_ratio_proposed=0.4))
    assert "  recovery  surge: safe split 0.400 instead" in lines
    assert "  residual  +0.010 (it does not learn now)" in lines


def test_a_surge_that_the_base_had_foreseen_or_that_finds_empty_caches_is_not_told_as_a_move() -> None:
    layers = {"base": 0.61, "residual": 0.01, "recovery": 0.0, "phase": 1.0, "frozen": 0.0}
    lines = explain(record(layers=layers, reason="caches_were_empty"))
    assert lines[1:4:2] == ["  base      wants 0.610 (caches were empty)", "  recovery  surge"]


def test_a_rule_has_one_line_and_an_older_node_lacks_some() -> None:
    old = record(controller="b5", layers={"best": 0.6}, reason="gain_small", guard_reasons=[], shadow_emb_ratio=None, features={})
    del old["feature_shares"], old["regret_ms"]
    assert explain(old) == [
        "node-0, decision 7 of b5 (auto): EMB 0.500, target 0.600",
        "  proposed  0.620, because: gain small",
    ]


def test_every_reason_of_the_guard_has_words() -> None:
    for reason in REASONS:
        assert f"  guard     {reason}" not in explain(record(guard_reasons=[reason]))
