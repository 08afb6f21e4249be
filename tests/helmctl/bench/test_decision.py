import pytest

from helmctl.bench import decision


def test_every_figure_is_measured_and_the_kernel_agrees_with_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, count in {"CALLS_MIN": 40, "WARM_CALLS": 4, "TORCH_CALLS": 4, "RULE_CALLS": 4}.items():
        monkeypatch.setattr(decision, name, count)
    results = {result.name: result for result in decision.measure(2, lambda line: None)}
    assert {"decision_us", "decision_torch_eager_us", "speedup_over_torch", "shadow_us"} <= set(results)
    assert results["decision_calls"].median == 40
    assert results["torch_difference"].median is not None
    assert results["torch_difference"].median < 1e-5
    assert all(result.median is not None and result.median >= 0.0 for result in results.values())
