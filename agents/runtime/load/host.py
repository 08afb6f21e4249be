"""How busy the machine is, as this process may use it: its affinity and its cgroup's quota count, not the whole host."""

import os
from pathlib import Path

import psutil

_CGROUP = Path("/sys/fs/cgroup")


class HostCpu:
    """Share of the usable CPU that was busy since the last reading, 0..1."""

    def __init__(self, cgroup: Path = _CGROUP) -> None:
        self._cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(psutil.cpu_count() or 1))
        self._quota_cores = _quota_cores(cgroup)
        self._cgroup = cgroup
        self._used_us = _used_us(cgroup) if self._quota_cores else 0
        self._read_ns: int | None = None
        psutil.cpu_percent(percpu=True)

    def read(self, now_ns: int) -> float:
        """NaN on the first reading: a share needs two."""
        shares: list[float] = psutil.cpu_percent(percpu=True)
        mine = [shares[core] for core in self._cores if core < len(shares)] or shares
        host = sum(mine) / len(mine) / 100.0
        before, self._read_ns = self._read_ns, now_ns
        used_before = self._used_us
        if self._quota_cores:
            self._used_us = _used_us(self._cgroup)
        if before is None or now_ns <= before:
            return float("nan")
        if not self._quota_cores:
            return host
        quota = (self._used_us - used_before) * 1_000 / (now_ns - before) / self._quota_cores
        return min(1.0, max(host, quota))


def _quota_cores(cgroup: Path) -> float:
    """Cores the cgroup grants; 0 where it sets no limit."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
        return 0.0 if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return 0.0


def _used_us(cgroup: Path) -> int:
    try:
        lines = (cgroup / "cpu.stat").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("usage_usec"))
    except (OSError, ValueError, StopIteration):
        return 0
