"""What the environment may say about the live comparison, and what it may not."""

import pytest

from helmctl.bench.fleet import BenchError
from helmctl.bench.live import AUTO, HASH, S0, Figures, _pairs, _trial


def test_a_trial_is_of_both_regimes_on_paced_nodes_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = _trial(90.0)
    assert (plain.profile, plain.regimes, plain.seconds, plain.warm_seconds) == ("cpu-paced", ("trend", "burst"), 90.0, 120.0)
    assert (plain.rate, plain.s0_ratio, plain.nodes) == (0.0, 0.5, 4)
    for name, value in (("PROFILE", "cpu-demo"), ("REGIMES", "burst"), ("RATE", "12.5"), ("S0", "0.4"), ("NODES", "2")):
        monkeypatch.setenv(f"HELM_BENCH_LIVE_{name}", value)
    told = _trial(90.0)
    assert (told.profile, told.regimes, told.rate, told.s0_ratio, told.nodes) == ("cpu-demo", ("burst",), 12.5, 0.4, 2)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("PROFILE", "cpu-fast", "unknown 'cpu-fast'"),
        ("REGIMES", "burst,steady", "names other regimes than trend and burst"),
        ("REGIMES", "burst,burst", "or one twice"),
        ("REGIMES", "", "names other regimes"),
        ("RATE", "fast", "'fast' is not a number above zero"),
        ("WARM_SECONDS", "-3", "'-3' is not a number above zero"),
    ],
)
def test_a_trial_that_cannot_be_is_refused_by_its_variable(monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str) -> None:
    monkeypatch.setenv(f"HELM_BENCH_LIVE_{name}", value)
    with pytest.raises(BenchError, match=f"HELM_BENCH_LIVE_{name}: .*{message}"):
        _trial(90.0)


def test_every_run_pairs_with_the_same_blocks_auto_and_a_prediction_with_predictions() -> None:
    found = {way.name: [Figures(base + block, base / 2) for block in range(2)] for way, base in ((AUTO, 10.0), (S0, 20.0), (HASH, 40.0))}
    pairs = _pairs(found)
    assert pairs["live_p99_ratio_vs_s0"] == [(10.0, 20.0), (11.0, 21.0)]
    assert pairs["live_p99_ratio_vs_hash"] == [(10.0, 40.0), (11.0, 41.0)]
    assert pairs["live_mean_ratio_vs_s0"] == [(5.0, 10.0), (5.0, 10.0)]
    assert not [name for name in pairs if name.startswith("predicted_")]
