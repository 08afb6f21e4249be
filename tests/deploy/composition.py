"""What `docker compose up` does with our file, without containers: the same commands, environments, order and health checks.

A process stands for a container, so only what a container brings is put in place: its address becomes a port on the
loopback, its volumes are folders, its PATH finds this Python.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
VARIABLE = re.compile(r"\$\$|\$\{(\w+)(?::([-?])([^}]*))?\}")
PERIOD_SECONDS = 0.4  # each look at each service starts a process
STARTS_SECONDS = 150.0  # the machine may be busy with other tests

Service = dict[str, Any]


class MissingVariableError(Exception):
    """A variable that the file asks for is not set; the text is the file's own hint."""


def interpolate(value: Any, environ: Mapping[str, str]) -> Any:
    """Fill in `${NAME}`, `${NAME:-default}` and `${NAME:?hint}` wherever a text occurs."""

    def fill(found: re.Match[str]) -> str:
        name, kind, rest = found.groups()
        if name is None:
            return "$"
        if environ.get(name):
            return environ[name]
        if kind == "?":
            raise MissingVariableError(f"{name}: {rest}")
        return rest if kind == "-" else ""

    return _each_text(value, lambda text: VARIABLE.sub(fill, text))


def placed(value: Any, places: Mapping[str, str]) -> Any:
    """Replace what stands for a container's own address or volume, all at once so that no replacement is replaced again."""
    pattern = re.compile("|".join(re.escape(name) for name in sorted(places, key=len, reverse=True)))
    return _each_text(value, lambda text: pattern.sub(lambda found: places[found.group()], text))


def _each_text(value: Any, change: Any) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_each_text(item, change) for item in value]
    if isinstance(value, dict):
        return {key: _each_text(item, change) for key, item in value.items()}
    return value


class Composition:
    """Services as processes; every one is ended by `stop`, whatever a test does."""

    def __init__(self, services: Mapping[str, Service], folder: Path, path: str) -> None:
        self.services = dict(services)
        self._folder = folder
        self._base = {"PATH": path, "HOME": str(folder), "NUMBA_CACHE_DIR": os.environ["NUMBA_CACHE_DIR"]}  # what the image sets
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.healthy: set[str] = set()
        self.done: dict[str, int] = {}

    def environment(self, name: str) -> dict[str, str]:
        return {**self._base, **self.services[name].get("environment", {})}

    def log(self, name: str) -> str:
        return (self._folder / f"{name}.log").read_text("utf-8", errors="replace")

    def start(self, name: str) -> None:
        command = self.services[name]["command"]
        with (self._folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                command, cwd=ROOT, env=self.environment(name), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def check(self, name: str) -> "subprocess.CompletedProcess[bytes]":
        """Run the health check as Compose does."""
        kind, *words = self.services[name]["healthcheck"]["test"]
        command = words if kind == "CMD" else ["/bin/sh", "-c", words[0]]
        return subprocess.run(command, cwd=ROOT, env=self.environment(name), capture_output=True, timeout=30, check=False)

    def is_healthy(self, name: str) -> bool:
        return self.check(name).returncode == 0

    def up(self) -> None:
        """Start everything, each when what it depends on is as far as it asks; fails with the log of what is not healthy in time."""
        waiting = list(self.services)
        deadline = time.monotonic() + STARTS_SECONDS
        while not self.is_up():
            for name in [name for name in waiting if self._may_start(name)]:
                waiting.remove(name)
                self.start(name)
            for name in list(self.running):
                self._look(name)
            late = [name for name in self.services if not self._is_settled(name)]
            assert time.monotonic() < deadline, "\n".join(f"{name} is not healthy: {self._tail(name)}" for name in late)
            time.sleep(PERIOD_SECONDS)

    def is_up(self) -> bool:
        return all(self._is_settled(name) for name in self.services)

    def _is_settled(self, name: str) -> bool:
        return name in self.healthy or self.done.get(name) == 0

    def _may_start(self, name: str) -> bool:
        return all(
            self.done.get(other) == 0 if wanted["condition"] == "service_completed_successfully" else other in self.healthy
            for other, wanted in self.services[name].get("depends_on", {}).items()
        )

    def _look(self, name: str) -> None:
        status = self.running[name].poll()
        if self.services[name]["restart"] == "no":
            if status is not None:
                assert status == 0, f"{name} ended with {status}: {self._tail(name)}"
                self.done[name] = status
            return
        assert status is None, f"{name} ended with {status}: {self._tail(name)}"
        if name not in self.healthy and ("healthcheck" not in self.services[name] or self.is_healthy(name)):
            self.healthy.add(name)

    def _tail(self, name: str) -> str:
        return self.log(name)[-2_000:] if (self._folder / f"{name}.log").exists() else "not started"

    def end(self, name: str) -> int | None:
        """SIGTERM and the grace the file gives; the exit status, or None when it had to be killed."""
        process = self.running.pop(name)
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(float(self.services[name]["stop_grace_period"].removesuffix("s")))
        except subprocess.TimeoutExpired:
            return None
        finally:
            _kill_group(process)

    def stop(self) -> None:
        for process in self.running.values():
            _kill_group(process)


def _kill_group(process: "subprocess.Popen[bytes]") -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)


def search_path(folder: Path, redis_server: Path) -> str:
    """Where commands are found: a folder with Redis' programs, this Python's, the system's."""
    programs = folder / "bin"
    programs.mkdir()
    for name, path in {"redis-server": redis_server, "redis-cli": redis_server.with_name("redis-cli")}.items():
        (programs / name).symlink_to(path)
    return os.pathsep.join([str(programs), str(Path(sys.executable).parent), "/usr/local/bin", "/usr/bin", "/bin"])
