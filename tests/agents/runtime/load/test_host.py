import math
from pathlib import Path

import pytest

from agents.runtime.load.host import HostCpu


def cgroup(folder: Path, limit: str, used_us: int) -> Path:
    (folder / "cpu.max").write_text(limit)
    (folder / "cpu.stat").write_text(f"usage_usec {used_us}\nuser_usec 1\n")
    return folder


def test_the_first_reading_is_unknown_and_later_ones_are_shares(tmp_path: Path) -> None:
    cpu = HostCpu(tmp_path)
    assert math.isnan(cpu.read(1_000))
    assert 0.0 <= cpu.read(2_000_000_000) <= 1.0


def test_a_cgroups_quota_counts_as_the_whole_machine(tmp_path: Path) -> None:
    cpu = HostCpu(cgroup(tmp_path, "200000 100000\n", 0))  # two cores
    cpu.read(0)
    cgroup(tmp_path, "200000 100000\n", 2_000_000)
    assert cpu.read(1_000_000_000) == pytest.approx(1.0)


def test_a_cgroup_without_a_limit_leaves_the_host_to_speak(tmp_path: Path) -> None:
    cpu = HostCpu(cgroup(tmp_path, "max 100000\n", 0))
    cpu.read(0)
    cgroup(tmp_path, "max 100000\n", 10**12)
    assert cpu.read(1_000_000_000) <= 1.0


def test_usage_above_the_quota_is_still_the_whole_and_no_more(tmp_path: Path) -> None:
    cpu = HostCpu(cgroup(tmp_path, "100000 100000\n", 0))
    cpu.read(0)
    cgroup(tmp_path, "100000 100000\n", 5_000_000)
    assert cpu.read(1_000_000_000) == 1.0
