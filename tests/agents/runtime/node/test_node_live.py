"""A node as it runs: real device, real clock, real process. Slow parts are shared by the tests of this file."""

import asyncio
import json
import math
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import numpy as np
import pytest

from agents.runtime.config import NodeSettings, SettingsError, bind
from agents.runtime.node_daemon import NodeDaemon, make_device
from agents.wire.messages import FleetFile, NodeAddress
from agents.workloads import journal
from tests.agents.runtime.node.parts import PATIENCE_SECONDS, tiny_profile, until
from tests.agents.runtime.node.serving import INFER, infer_body
from tests.agents.runtime.node.test_journal_writer import replay
from tests.patience import free_port
from tests.patience import until as wait_until

START_SECONDS_MAX = 180.0  # a first start compiles kernels, beside a busy test run slowly
PROFILE = tiny_profile(link_bytes_per_second=1e9, refill_bytes_per_second=1e8, batch_max=4, queue_max=16)
KEY = {"Authorization": "Bearer key"}


@asynccontextmanager
async def daemon(folder: Path, **changes: Any) -> AsyncIterator[tuple[NodeDaemon, aiohttp.ClientSession]]:
    settings = NodeSettings(
        name="node-0", host="127.0.0.1", port=0, profile=PROFILE, fleet_key="key", salt=b"salt", state_folder=folder, **changes
    )
    node = NodeDaemon(settings, make_device(settings), body_seconds_max=0.3)
    await node.start(bind("127.0.0.1", 0))
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{node.port}") as client:
            yield node, client
    finally:
        await node.stop()


async def scores(client: aiohttp.ClientSession, content: Any) -> list[float]:
    async with client.post(INFER, json=content) as response:
        body = await response.json()
        assert response.status == 200, body
        values: list[float] = body["outputs"][0]["data"]
        return values


async def put(client: aiohttp.ClientSession, content: dict[str, Any]) -> dict[str, Any]:
    async with client.put("/v1/control", json=content, headers=KEY) as response:
        assert response.status == 200
        body: dict[str, Any] = await response.json()
        return body


async def status(client: aiohttp.ClientSession) -> dict[str, Any]:
    async with client.get("/v1/status", headers=KEY) as response:
        body: dict[str, Any] = await response.json()
        return body


async def test_a_kept_prefix_gives_the_scores_of_computing_from_scratch(tmp_path: Path) -> None:
    async with daemon(tmp_path, admission="none") as (_, client):
        cold = await scores(client, infer_body(user="a", tokens=30))
        warm = await scores(client, infer_body(user="a", tokens=30))
        stranger = await scores(client, infer_body(user=None, tokens=30))
        assert len(cold) == 4
        assert all(math.isfinite(value) for value in cold)
        np.testing.assert_allclose(warm, cold, atol=1e-4)
        np.testing.assert_allclose(stranger, cold, atol=1e-4)


async def test_the_node_is_unharmed_by_everything_a_stranger_can_send(tmp_path: Path) -> None:
    async with daemon(tmp_path) as (node, client):
        before = await scores(client, infer_body(user="a", tokens=20))
        for content, expected in _bad_bodies():
            async with client.post(INFER, data=content) as response:
                assert response.status == expected, content[:80]
                assert list(await response.json()) == ["error"]
        _, writer = await asyncio.open_connection("127.0.0.1", node.port)
        writer.write(f"POST {INFER} HTTP/1.1\r\nHost: h\r\nContent-Length: 99\r\n\r\n{{".encode())
        extreme = infer_body(user="b", tokens=8)
        extreme["inputs"][2]["data"] = [-(2**63), 2**63 - 1, 0, -1, 1, 2**62, -(2**62), 5]
        assert all(math.isfinite(value) for value in await scores(client, extreme))
        np.testing.assert_allclose(await scores(client, infer_body(user="a", tokens=20)), before, atol=1e-4)
        writer.close()
        now = await status(client)
        assert (now["phase"], now["failures_total"], now["requests_total"]) == ("ready", 0, 3)


def _bad_bodies() -> list[tuple[bytes, int]]:
    """Bodies with the status each deserves."""
    missing = infer_body()
    del missing["inputs"][3]
    wrong_type = infer_body()
    wrong_type["inputs"][0]["datatype"] = "FP32"
    wrong_shape = infer_body()
    wrong_shape["inputs"][0]["shape"] = [8]
    outside = infer_body()
    outside["inputs"][3]["data"][1] = 1_000
    too_long, empty, nothing = infer_body(tokens=129), infer_body(tokens=0), infer_body(scored=0)
    bodies = [missing, wrong_type, wrong_shape, outside, too_long, empty, nothing]
    return [(json.dumps(body).encode(), 400) for body in bodies] + [(b"nope", 400), (b" " * (20 << 20), 413)]


async def test_a_long_history_is_truncated_and_the_answer_says_so(tmp_path: Path) -> None:
    async with daemon(tmp_path) as (_, client), client.post(INFER, json=infer_body(tokens=40)) as response:
        body = await response.json()
        assert body["parameters"] == {"history_truncated": True, "history_tokens_sent": 40, "history_tokens_used": 32}


async def test_an_override_moves_pages_under_load_and_ends_by_itself(tmp_path: Path) -> None:
    async with daemon(tmp_path, admission="none", controller="static-0.50") as (node, client):
        body = await put(client, {"mode": "override", "emb_ratio": 0.75, "ttl_ms": 1_500, "reason": "test"})
        assert body["mode"] == "override"
        ratios = []
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (now := await status(client))["mode"] == "override":
                await scores(client, infer_body(user=len(ratios) % 9, tokens=16))
                ratios.append(now["emb_ratio"])
        assert max(ratios) == 0.75
        await until(lambda: node.engine.telemetry().emb_ratio == 0.5)


async def test_an_override_outlives_a_restart_but_not_its_time(tmp_path: Path) -> None:
    async with daemon(tmp_path) as (_, client):
        await put(client, {"mode": "override", "emb_ratio": 0.7, "ttl_ms": 600_000, "reason": "test"})
    async with daemon(tmp_path) as (_, client):
        now = await status(client)
        assert now["mode"] == "override"
        assert 0 < now["override_remaining_ms"] < 600_000
        await put(client, {"mode": "auto"})
    async with daemon(tmp_path) as (_, client):
        assert (await status(client))["mode"] == "auto"


async def test_a_damaged_state_file_does_not_keep_a_node_from_serving(tmp_path: Path) -> None:
    path = tmp_path / "nodes" / "node-0" / "spec.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"{ broken")
    async with daemon(tmp_path) as (_, client):
        assert len(await scores(client, infer_body())) == 4


async def test_the_journal_of_a_live_node_replays_to_the_same_decisions(tmp_path: Path) -> None:
    async with daemon(tmp_path, admission="none", journal_folder=tmp_path / "journal") as (_, client):
        await put(client, {"mode": "pin", "emb_ratio": 0.25, "reason": "test"})
        for step in range(60):
            await asyncio.gather(*(scores(client, infer_body(user=step + other, tokens=16)) for other in range(4)))
        await put(client, {"mode": "pin", "emb_ratio": 0.75, "reason": "test"})
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (await status(client))["emb_ratio"] != 0.75:
                await asyncio.gather(*(scores(client, infer_body(user=other, tokens=16)) for other in range(4)))
    (path,) = (tmp_path / "journal").rglob("*.journal")
    assert list(journal.read_records(path))[-1] == journal.End(reason="closed")
    again, compared = replay(path)
    assert compared > 60
    assert again.ledger.emb_ratio == 0.75
    again.ledger.check()


# --- as a process -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A fleet file with one node of the demo profile, in a state folder of its own."""
    path, port = tmp_path_factory.mktemp("state") / "fleet.json", free_port()
    node = NodeAddress(name="node-0", host="127.0.0.1", port=port)
    content = FleetFile(cluster_salt_hex="ab", fleet_key="key", router=node, nodes=[node], profile="cpu-demo")
    path.write_bytes(msgspec.json.encode(content))
    return path, port


def start(fleet_file: Path, *extra: str) -> "subprocess.Popen[str]":
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "HELM_STATE_DIR": str(fleet_file.parent)}
    command = [sys.executable, "-m", "agents.runtime.node_main", "--fleet", str(fleet_file), "--name", "node-0", *extra]
    return subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True)


@contextmanager
def running(fleet_file: Path, port: int, *extra: str) -> Iterator["subprocess.Popen[str]"]:
    process = start(fleet_file, *extra)
    try:
        wait_until("the node to be ready, or to end", lambda: _ready(port) or process.poll() is not None, START_SECONDS_MAX)
        assert process.poll() is None, process.stderr and process.stderr.read()
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def _ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=1) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def call(port: int, method: str, path: str, content: Any = None) -> Any:
    data = None if content is None else json.dumps(content).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=data, method=method, headers=KEY)
    with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as response:
        return json.loads(response.read())


@pytest.mark.live
def test_a_node_process_serves_survives_a_kill_and_drains_on_sigterm(fleet: tuple[Path, int]) -> None:
    path, port = fleet
    with running(path, port) as first:
        answer = call(port, "POST", INFER, infer_body(tokens=300, scored=512))
        assert len(answer["outputs"][0]["data"]) == 512
        call(port, "PUT", "/v1/control", {"mode": "override", "emb_ratio": 0.3, "ttl_ms": 3_600_000, "reason": "test"})
        taken = start(path)
        _, said = taken.communicate(timeout=60)
        assert taken.returncode == 2
        assert said == f"HELM node: 127.0.0.1:{port} is taken\n"
        first.kill()
        first.wait()
    with running(path, port) as second:
        now = call(port, "GET", "/v1/status")
        assert now["mode"] == "override"
        assert now["override_remaining_ms"] < 3_600_000
        second.send_signal(signal.SIGTERM)
        assert second.wait(timeout=15) == 0


@pytest.mark.live
def test_a_node_that_cannot_start_says_why_in_one_line(fleet: tuple[Path, int]) -> None:
    path, _ = fleet
    process = start(path, "--name", "node-7")
    _, said = process.communicate(timeout=60)
    assert process.returncode == 2
    assert said == f"HELM node: {path}: no node is called 'node-7', there are node-0\n"


async def test_a_controller_nobody_knows_is_a_refusal(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="magic"):
        async with daemon(tmp_path, controller="magic"):
            pass
