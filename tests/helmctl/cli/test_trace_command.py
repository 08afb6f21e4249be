import json
from pathlib import Path

import pytest

from helmctl.cli.main import run


def log(tmp_path: Path, rows: int = 300, **replaced: str) -> Path:
    lines = ["who,what,when", *(f"u{i % 9},{i * i % 31},{1_600_000_000 + 40 * i}" for i in range(rows))]
    for key, text in replaced.items():
        lines[int(key.removeprefix("line")) - 1] = text
    path = tmp_path / "log.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


COLUMNS = ["--user", "who", "--item", "what", "--ts", "when"]


def test_an_import_writes_a_trace_that_describe_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "out.parquet"
    assert run(["trace", "import", str(log(tmp_path, line17="u1,3,yesterday")), *COLUMNS, "--out", str(target)]) == 0
    told = capsys.readouterr().out
    assert "1 of 300 rows skipped as bad, first at line 17: when is not a time" in told
    assert "histories lengthened by a past drawn from the log's own popularity" in told
    assert run(["trace", "describe", str(target), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["facts"]["users"], found["facts"]["items"], found["facts"]["events"]) == (9, 16, 299)
    assert {match["generator"] for match in found["generators"]} == {"taobao", "amazon-books", "amazon-video-games"}


def test_describe_prints_skew_revisits_and_the_nearest_generator(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["trace", "describe", str(log(tmp_path)), *COLUMNS]) == 0
    told = capsys.readouterr().out
    for word in ("Zipf-Mandelbrot", "revisits", "bursts", "nearest generator", "events per user"):
        assert word in told


@pytest.mark.parametrize(
    ("replaced", "options", "line"),
    [
        ({}, ["--user", "name", "--item", "what", "--ts", "when"], "no column 'name'"),
        ({"line3": "u1,3,-5", "line4": "u1,3,-5", "line5": "u1,3,-5", "line6": "u1,3,-5"}, COLUMNS, "line 3: when is not a time"),
        ({"line9": "u1,3,1600000000"}, COLUMNS, "line 9: when is earlier than the row before"),
        ({}, [*COLUMNS, "--history-rule", "long"], "history: unknown 'long'"),
        ({}, [*COLUMNS, "--profile", "abacus"], "unknown 'abacus'"),
        ({}, [*COLUMNS, "--value", "kind"], "value: must be COLUMN=VALUE"),
        ({}, [*COLUMNS, "--ts-unit", "weeks"], "ts_unit: unknown 'weeks'"),
    ],
)
def test_bad_input_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], replaced: dict[str, str], options: list[str], line: str
) -> None:
    assert run(["trace", "import", str(log(tmp_path, **replaced)), *options]) == 2
    told = capsys.readouterr().err
    assert line in told
    assert told.count("\n") == 1
    assert not list(tmp_path.glob("*.parquet"))


def test_an_empty_and_a_missing_file_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.csv").write_text("")
    assert run(["trace", "describe", str(tmp_path / "empty.csv")]) == 2
    assert "empty" in capsys.readouterr().err
    assert run(["trace", "describe", str(tmp_path / "nowhere.parquet")]) == 2
    assert "no such file" in capsys.readouterr().err
