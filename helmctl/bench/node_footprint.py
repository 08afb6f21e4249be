"""What a node's process costs beside its work: memory beyond torch, model and arena, and CPU while nobody asks.

Both are measured on a real node process. The memory is compared with a second process that has imported torch
and built the same device (table mapped, model, arena) and nothing else. Pages of the mapped table are left out on
both sides: they are the machine's page cache, shared by all nodes. The first start only fills the cache of compiled kernels.
"""

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import psutil

from agents.profiles import load_profile
from agents.runtime.load.client import INFER_PATH, encode_request
from agents.wire.messages import FleetFile, NodeAddress
from agents.workloads.demo import DemoParameters, synthetic_workload
from helmctl.bench.report import Result, Say, result_of

PROFILE = "cpu-demo"
NAME = "node-0"
START_SECONDS_MAX = 300.0  # a first start compiles every kernel, on a busy machine slowly
END_SECONDS_MAX = 30.0
REQUESTS = 40  # enough that every buffer of the request path has been used
TABLE_SUFFIX = ".npy"

# Torch, arena and model, used once; prints a line then and waits for the end of its input.
_DEVICE_ONLY = """
import sys
import numpy, safetensors.torch, torch
from agents.profiles import load_profile
from agents.runtime.model import HstuRanker, init_weights
assert "numba" not in sys.modules, "the compiler would count as the device's"
torch.set_num_threads(1)
profile = load_profile(sys.argv[1])
shape = profile.model
arena = torch.empty(profile.pool_bytes, dtype=torch.uint8).zero_()
model = HstuRanker(shape, init_weights(shape, 1))
with torch.inference_mode():
    times = torch.arange(shape.tokens_max)
    rows = torch.zeros(shape.tokens_max, shape.dim)
    prefix = torch.zeros(0, model.token_floats)
    model.forward(rows, torch.zeros_like(times), times, prefix, torch.zeros(profile.candidates, shape.dim))
print("ready", flush=True)
sys.stdin.read()
"""


def measure(runs: int, say: Say, seconds: float = 20.0) -> list[Result]:
    """`agent_rss_bytes` and `agent_idle_cpu_ratio`; `seconds` of idling are watched per run."""
    extra_bytes, idle_ratios = [], []
    with TemporaryDirectory(prefix="helm-bench-") as folder:
        fleet_file, port = _write_fleet(Path(folder))
        bodies = _bodies()
        with _node(fleet_file, port):
            _serve(port, bodies)
        for run in range(runs):
            bare_bytes = _bare_bytes()
            with _node(fleet_file, port) as process:
                _serve(port, bodies)
                idle_ratios.append(_cpu_ratio(process, seconds))
                extra_bytes.append(_private_bytes(process) - bare_bytes)
            say(f"footprint {run + 1}/{runs}: {extra_bytes[-1] / 1e6:.0f} MB beyond the device, idle {idle_ratios[-1]:.4f}")
    return [result_of("agent_rss_bytes", extra_bytes, "B"), result_of("agent_idle_cpu_ratio", idle_ratios, "ratio")]


def _write_fleet(folder: Path) -> tuple[Path, int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    node = NodeAddress(name=NAME, host="127.0.0.1", port=port)
    path = folder / "fleet.json"
    path.write_bytes(msgspec.json.encode(FleetFile(cluster_salt_hex="ab", fleet_key="key", router=node, nodes=[node], profile=PROFILE)))
    return path, port


def _bodies() -> list[bytes]:
    parameters = DemoParameters.for_profile(load_profile(PROFILE))
    return [encode_request(request) for request in islice(synthetic_workload("steady", 1, parameters=parameters).requests(), REQUESTS)]


def _serve(port: int, bodies: list[bytes]) -> None:
    for body in bodies:
        request = urllib.request.Request(f"http://127.0.0.1:{port}{INFER_PATH}", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=END_SECONDS_MAX) as response:  # noqa: S310 - the loopback
            response.read()


@contextmanager
def _node(fleet_file: Path, port: int) -> Iterator[psutil.Process]:
    """A node process that has said ready; ended with SIGTERM."""
    command = [sys.executable, "-m", "agents.runtime.node_main", "--fleet", str(fleet_file), "--name", NAME]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            _await_ready(process, port)
            yield psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait(END_SECONDS_MAX)


def _await_ready(process: "subprocess.Popen[bytes]", port: int) -> None:
    give_up = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < give_up and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=1.0):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise RuntimeError(f"the node was not ready within {START_SECONDS_MAX:g} s (exit code {process.poll()})")


def _bare_bytes() -> int:
    """Resident bytes of a process that holds torch, arena and model."""
    command = [sys.executable, "-c", _DEVICE_ONLY, PROFILE]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        if process.stdout is None or process.stdin is None or process.stdout.readline() != b"ready\n":
            process.kill()
            raise RuntimeError("the process that holds only the device did not start")
        try:
            return _private_bytes(psutil.Process(process.pid))
        finally:
            process.stdin.close()
            process.wait(END_SECONDS_MAX)


def _private_bytes(process: psutil.Process) -> int:
    table_bytes = sum(part.rss for part in process.memory_maps() if part.path.endswith(TABLE_SUFFIX))
    return int(process.memory_info().rss - table_bytes)


def _cpu_ratio(process: psutil.Process, seconds: float) -> float:
    before, begun = process.cpu_times(), time.monotonic()
    time.sleep(seconds)
    after, ended = process.cpu_times(), time.monotonic()
    return float(after.user + after.system - before.user - before.system) / (ended - begun)
