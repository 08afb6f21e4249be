import sys

import pytest

from helmctl.bench import fleet


def test_what_the_warm_up_says_is_no_part_of_a_benchs_output(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A bench prints one JSON object on standard output; programs read it."""
    run = fleet.subprocess.run
    monkeypatch.setattr(fleet.subprocess, "run", lambda _, **known: run([sys.executable, "-c", "print('kernels ready')"], **known))
    with fleet.bench_fleet(1, "cpu-tiny"):
        print("{}")
    assert tuple(capfd.readouterr()) == ("{}\n", "kernels ready\n")
