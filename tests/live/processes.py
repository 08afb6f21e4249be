"""A live fleet in miniature: real processes on free loopback ports, gone when the test is over."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from agents.wire.messages import FleetFile, NodeAddress
from tests.patience import free_ports, until

READY_SECONDS = 120.0  # a first start on a busy machine compiles kernels
STOP_SECONDS = 20.0
KEY = "test-key"


class LiveFleet:
    """Router, nodes and whatever a test adds."""

    def __init__(self, folder: Path, nodes: int, profile: str) -> None:
        self.folder = folder
        self.journals = folder / "journals"
        ports = free_ports(nodes + 2)
        self.second_router = NodeAddress(name="router-1", host="127.0.0.1", port=ports.pop())
        self.file = FleetFile(
            cluster_salt_hex="07" * 16,
            fleet_key=KEY,
            router=NodeAddress(name="router", host="127.0.0.1", port=ports[0]),
            nodes=[NodeAddress(name=f"node-{index}", host="127.0.0.1", port=port) for index, port in enumerate(ports[1:])],
            profile=profile,
        )
        self.path = folder / "fleet.json"
        self.path.write_bytes(msgspec.json.encode(self.file))
        self.path.chmod(0o600)
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a router, a node or a load generator; those whose name ends in -1 have the second router as theirs."""
        kind = name.partition("-")[0]
        extra = ["--name", name] if kind == "node" else []
        path = self._second_path() if name in ("router-1", "load-1") else self.path
        command = [sys.executable, "-m", f"agents.runtime.{kind}_main", "--fleet", str(path), *extra, *arguments]
        output = (self.folder / f"{name}.log").open("ab")
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HELM_STATE_DIR": str(self.folder)}
        self.running[name] = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
        return self.running[name]

    def _second_path(self) -> Path:
        """The same fleet behind the second router."""
        path = self.folder / "second.json"
        path.write_bytes(msgspec.json.encode(msgspec.structs.replace(self.file, router=self.second_router)))
        path.chmod(0o600)
        return path

    def log(self, name: str) -> str:
        """What a process has printed so far."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def wait_ready(self, name: str) -> None:
        """Until a router or node answers that it is ready."""

        def ready() -> bool:
            assert self.running[name].poll() is None, self.log(name)
            try:
                self.get(name, "/v2/health/ready")
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                return False
            return True

        until(f"{name} to be ready", ready, READY_SECONDS)

    def wait_until(self, holds: Any, seconds: float, what: str) -> None:
        """Until `holds()` is true; fails naming `what` after `seconds`."""
        until(what, holds, seconds)

    def url(self, name: str) -> str:
        """Base address of a process."""
        addresses = {address.name: address for address in (self.file.router, self.second_router, *self.file.nodes)}
        return f"http://127.0.0.1:{addresses[name].port}"

    def get(self, name: str, path: str) -> bytes:
        """GET with the fleet's key."""
        return self._call(urllib.request.Request(self.url(name) + path))

    def status(self, name: str) -> dict[str, Any]:
        """A node's telemetry or the router's view."""
        found: dict[str, Any] = json.loads(self.get(name, "/v1/fleet" if name == "router" else "/v1/status"))
        return found

    def control(self, name: str, **content: Any) -> None:
        """A command to one node."""
        body = json.dumps(content).encode()
        self._call(urllib.request.Request(self.url(name) + "/v1/control", data=body, method="PUT"))

    def infer(self, content: dict[str, Any]) -> dict[str, Any]:
        """One inference request through the router."""
        url = self.url("router") + "/v2/models/helm-ranker/infer"
        request = urllib.request.Request(url, data=json.dumps(content).encode(), headers={"Content-Type": "application/json"})
        found: dict[str, Any] = json.loads(self._call(request))
        return found

    def _call(self, request: urllib.request.Request) -> bytes:
        request.add_header("Authorization", f"Bearer {KEY}")
        with urllib.request.urlopen(request, timeout=10) as response:
            body: bytes = response.read()
            return body

    def stop(self, name: str) -> int:
        """SIGTERM, and the exit code."""
        process = self.running.pop(name)
        process.send_signal(signal.SIGTERM)
        return process.wait(STOP_SECONDS)


def _compile_kernels() -> None:
    """Once, not in each process; in the clone's state folder, where the tests and all that they start look for kernels."""
    environment = {name: value for name, value in os.environ.items() if name != "HELM_STATE_DIR"}
    subprocess.run([sys.executable, "-m", "helmctl.supervisor.warm"], check=True, timeout=300, env=environment)


@contextmanager
def live_fleet(
    folder: Path, *, nodes: int = 2, profile: str = "cpu-tiny", journal: bool = False, controller: str = "b5"
) -> Iterator[LiveFleet]:
    """A ready router and its nodes; every process is ended by pid whatever the test does."""
    _compile_kernels()
    fleet = LiveFleet(folder, nodes, profile)
    try:
        for address in fleet.file.nodes:
            recorded = ["--journal", str(fleet.journals / address.name)] if journal else []
            fleet.start(address.name, "--controller", controller, *recorded)
        fleet.start("router", *(["--journal", str(fleet.journals / "router")] if journal else []))
        for name in ("router", *(address.name for address in fleet.file.nodes)):
            fleet.wait_ready(name)
        yield fleet
    finally:
        for process in fleet.running.values():
            process.kill()
            process.wait(STOP_SECONDS)
