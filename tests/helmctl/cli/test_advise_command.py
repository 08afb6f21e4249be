from pathlib import Path

import msgspec
import numpy as np
import pytest

from agents.sim.advise import Advice
from helmctl.cli.advise import in_words
from helmctl.cli.main import run


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    chance = np.random.default_rng(4)
    path = tmp_path_factory.mktemp("logs") / "log.npz"
    seconds = np.sort(chance.uniform(0, 60, 1500))
    np.savez(path, user=chance.integers(0, 600, 1500), item=chance.integers(0, 500, 1500), ts=((1.7e9 + seconds) * 1000).astype(np.int64))
    return path


def test_advice_comes_as_json_with_intervals_in_words_and_as_a_page(log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "advice.html"
    assert run(["advise", "--trace", str(log), "--profile", "cpu-tiny", "--json", "--html", str(page)]) == 0
    found = msgspec.json.decode(capsys.readouterr().out, type=Advice)
    assert found.emb_ratio_low <= found.emb_ratio <= found.emb_ratio_high
    assert found.latency_ms_p99.low <= found.latency_ms_p99.value <= found.latency_ms_p99.high
    told = "\n".join(in_words(found))
    for word in ("nodes", "memory", "best split", "adapting pays", "EMB share", "pool GB"):
        assert word in told
    text = page.read_text("utf-8")
    assert "adapting pays" in text
    assert 'src="http' not in text  # nothing is fetched


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--profile", "abacus"], "unknown 'abacus'"),
        (["--slo-ms", "0"], "slo-ms: must be above zero"),
        (["--slo-ms", "nan"], "slo-ms: must be above zero"),
        (["--rate", "-1"], "rate_per_second must be"),
        (["--user", "who"], "no column 'who'"),
        (["--history-rule", "long"], "history: unknown 'long'"),
    ],
)
def test_bad_input_is_refused_in_one_line(log: Path, capsys: pytest.CaptureFixture[str], options: list[str], line: str) -> None:
    assert run(["advise", "--trace", str(log), *options]) == 2
    told = capsys.readouterr().err
    assert line in told
    assert told.count("\n") == 1


def test_a_missing_log_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["advise", "--trace", str(tmp_path / "nowhere.csv")]) == 2
    assert "no such file" in capsys.readouterr().err
