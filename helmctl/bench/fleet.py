"""A small fleet of real processes for as long as a bench needs it: free loopback ports, a folder of its own, nothing left behind."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import msgspec
import psutil

from agents.runtime.router_main import STANDING_BY
from agents.wire.messages import FleetFile, NodeAddress
from helmctl.bench.report import MeasureError
from helmctl.supervisor.child import CALL_UP
from helmctl.supervisor.processes import COMPILED_ONCE, ONE_THREAD
from helmctl.supervisor.state import find_state_folder

READY_SECONDS = 180.0  # kernels are compiled already; what is left are imports and a model
WARM_SECONDS = 3_600.0  # minutes where nobody else computes; it happens once per version
STOP_SECONDS = 20.0
_POLL_SECONDS = 0.1
HOST = "127.0.0.1"
STANDBY = "standby"
_STDERR = 2  # by number: a replaced sys.stderr may have none


class BenchError(MeasureError):
    """A process of the bench did not do its part; one sentence with the end of its log."""


class BenchFleet:
    """Router, nodes and whatever a bench adds, by name."""

    def __init__(self, folder: Path, nodes: int, profile: str) -> None:
        self.folder = folder
        ports = _free_ports(nodes + 1)
        self.file = FleetFile(
            cluster_salt_hex=secrets.token_hex(16),
            fleet_key=secrets.token_hex(16),
            router=NodeAddress(name="router", host=HOST, port=ports[0]),
            nodes=[NodeAddress(name=f"node-{index}", host=HOST, port=port) for index, port in enumerate(ports[1:])],
            profile=profile,
        )
        self.path = folder / "fleet.json"
        self.path.write_bytes(msgspec.json.encode(self.file))
        self.path.chmod(0o600)
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, module: str, *arguments: str, core: int | None = None, stdin: int = subprocess.DEVNULL) -> None:
        """Start `python -m module arguments` under a name, on one core if told."""
        command = [sys.executable, "-m", module, *arguments]
        # the product's own kernels, compiled once into its state folder; everything else in the bench's
        environment = {**os.environ, **ONE_THREAD, **COMPILED_ONCE, **find_state_folder().cache_env(), "HELM_STATE_DIR": str(self.folder)}
        with (self.folder / f"{name}.log").open("ab") as output:
            process = subprocess.Popen(command, stdin=stdin, stdout=output, stderr=subprocess.STDOUT, env=environment)
        self._running[name] = process
        if core is not None and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(process.pid, {core})

    def start_router(self, policy: str = "joint", core: int | None = None) -> None:
        """The product's router in front of the nodes."""
        self.start("router", "agents.runtime.router_main", "--fleet", str(self.path), "--policy", policy, core=core)

    def start_standby(self) -> None:
        """A second router, loaded and waiting, as the supervisor keeps one; returns when it waits."""
        self.start(STANDBY, "agents.runtime.router_main", "--fleet", str(self.path), "--standby", stdin=subprocess.PIPE)
        self._wait(STANDBY, lambda: STANDING_BY in self.log(STANDBY), time.monotonic() + READY_SECONDS)

    def call_up(self) -> None:
        """The standby serves, as the router."""
        standby = self._running["router"] = self._running.pop(STANDBY)
        if standby.stdin is not None:
            standby.stdin.write(CALL_UP)
            standby.stdin.close()

    def start_nodes(self, journals: Path | None = None) -> None:
        """The product's nodes, all that the fleet file names; each records its run in a folder of `journals`, if given."""
        for address in self.file.nodes:
            self.start_node(address.name, *(() if journals is None else ("--journal", str(journals / address.name))))

    def start_node(self, name: str, *arguments: str) -> None:
        """One of them."""
        self.start(name, "agents.runtime.node_main", "--fleet", str(self.path), "--name", name, *arguments)

    def wait_ready(self, *addresses: NodeAddress) -> None:
        """Until each says it is ready; `BenchError` when one ends or takes too long."""
        deadline = time.monotonic() + READY_SECONDS
        for address in addresses:
            self._wait(address.name, partial(_is_ready, address), deadline)

    def _wait(self, name: str, holds: Callable[[], bool], deadline: float) -> None:
        while not holds():
            if self._running[name].poll() is not None or time.monotonic() > deadline:
                raise BenchError(f"{name} did not become ready: {self.log(name)[-400:]}")
            time.sleep(_POLL_SECONDS)

    def wait_end(self, name: str, seconds: float) -> str:
        """What a process printed, once it has ended by itself; `BenchError` when it does not end well."""
        process = self._running.pop(name)
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            raise BenchError(f"{name} did not end within {seconds:.0f} s") from None
        if code != 0:
            raise BenchError(f"{name} ended with {code}: {self.log(name)[-400:]}")
        return self.log(name)

    def log(self, name: str) -> str:
        """What a process has printed so far."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def cpu_seconds(self, name: str) -> float:
        """CPU time a process has used."""
        times = psutil.Process(self._running[name].pid).cpu_times()
        return float(times.user + times.system)

    def call(self, name: str, path: str, body: bytes | None = None, method: str = "GET") -> bytes:
        """One request with the fleet's key to a router or node by name."""
        address = next(one for one in (self.file.router, *self.file.nodes) if one.name == name)
        request = urllib.request.Request(f"http://{HOST}:{address.port}{path}", data=body, method=method)
        request.add_header("Authorization", f"Bearer {self.file.fleet_key}")
        with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310 - the address is our own
            answer: bytes = response.read()
        return answer

    def stop(self, names: Sequence[str]) -> None:
        """End processes in good order; killed if they do not."""
        stopping = [self._running.pop(name) for name in names if name in self._running]
        for process in stopping:
            process.send_signal(signal.SIGTERM)
        for process in stopping:
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(STOP_SECONDS)

    def kill(self, name: str) -> None:
        """End a process as a crash would."""
        process = self._running.pop(name)
        process.kill()
        process.wait(STOP_SECONDS)

    def close(self) -> None:
        """End everything that still runs."""
        self.stop(list(self._running))


@contextmanager
def bench_fleet(nodes: int, profile: str) -> Iterator[BenchFleet]:
    """A fleet whose processes are not started yet; all that were are ended at the end."""
    # what it says is no part of a bench's one JSON object on standard output
    subprocess.run([sys.executable, "-m", "helmctl.supervisor.warm"], check=True, timeout=WARM_SECONDS, stdout=_STDERR)
    with tempfile.TemporaryDirectory(prefix="helm-bench-") as folder, ExitStack() as ends:
        fleet = BenchFleet(Path(folder), nodes, profile)
        ends.callback(fleet.close)
        yield fleet


def _is_ready(address: NodeAddress) -> bool:
    try:
        with urllib.request.urlopen(f"http://{HOST}:{address.port}/v2/health/ready", timeout=2):
            return True
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def _free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((HOST, 0))
        return [one.getsockname()[1] for one in sockets]
