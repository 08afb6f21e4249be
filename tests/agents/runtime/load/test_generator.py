import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from aiohttp import web

from agents.runtime.load import generator as module
from agents.runtime.load.generator import LoadGenerator, LoadSettings, NotReady
from agents.runtime.load.pacing import PaceControl, PaceLimits
from agents.wire.messages import FleetFile, NodeAddress
from agents.workloads.request import Request


class Router:
    """A router and its one node in this process: answers as it is told, remembers what came."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.ready = True
        self.ready_at_check = 0
        self.answers: dict[int, web.Response] = {}  # by user
        self.hold = asyncio.Event()
        self.health_checks = 0
        self.out = self.out_max = 0
        self._waiting: list[tuple[int, asyncio.Event]] = []
        self.held_users: set[int] = set()
        self.port = 0

    async def infer(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.bodies.append(body)
        self.out += 1
        self.out_max = max(self.out, self.out_max)
        for count, event in self._waiting:
            if len(self.bodies) >= count:
                event.set()
        user = body["parameters"]["user_id"]
        if user in self.held_users:
            await self.hold.wait()
        self.out -= 1
        if user in self.answers:
            return self.answers[user]
        count = next(tensor["shape"][1] for tensor in body["inputs"] if tensor["name"] == "candidates")
        output = {"name": "scores", "shape": [1, count], "datatype": "FP32", "data": [0.5] * count}
        return web.json_response({"outputs": [output]}, headers={"x-helm-node": "node-0", "x-helm-kv": "hit"})

    async def seen(self, count: int) -> None:
        """Returns once so many requests have come."""
        event = asyncio.Event()
        self._waiting.append((count, event))
        await event.wait()

    async def health(self, _request: web.Request) -> web.Response:
        self.health_checks += 1
        self.ready = self.ready or self.health_checks == self.ready_at_check
        return web.Response(status=200 if self.ready else 503)

    async def status(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != "Bearer secret":
            return web.Response(status=401)
        return web.json_response({"emb_ratio": 0.61, "emb_hit_ratio": 0.7, "kv_hit_ratio": 0.6, "name": "node-0"})

    @property
    def users(self) -> list[int]:
        return [body["parameters"]["user_id"] for body in self.bodies]

    @property
    def fleet(self) -> FleetFile:
        here = {"host": "127.0.0.1", "port": self.port}
        return FleetFile(
            cluster_salt_hex="00",
            fleet_key="secret",
            router=NodeAddress(name="router", **here),
            nodes=[NodeAddress(name="node-0", **here)],
            profile="cpu-demo",
        )


@pytest_asyncio.fixture
async def router() -> AsyncIterator[Router]:
    router = Router()
    app = web.Application()
    app.router.add_post(module.INFER_PATH, router.infer)
    app.router.add_get("/v2/health/ready", router.health)
    app.router.add_get("/v1/status", router.status)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    router.port = runner.addresses[0][1]
    yield router
    await runner.cleanup()


class Stream:
    """Users 0, 1, 2, ... every `gap_ms`; `stall` blocks the whole process once, as a starved machine would."""

    name = "stream"

    def __init__(self, count: int, gap_ms: float = 5.0, stall_seconds: float = 0.0) -> None:
        self.duration_seconds = count * gap_ms / 1e3
        self._count, self._gap_ms, self._stall_seconds = count, gap_ms, stall_seconds

    def requests(self) -> Iterator[Request]:
        for user in range(self._count):
            if user == 10 and self._stall_seconds:
                time.sleep(self._stall_seconds)
            history = np.arange(4, dtype=np.int64)
            yield Request(round(user * self._gap_ms * 1e6), user, history, history % 2, history, np.arange(user % 3 + 1, dtype=np.int64))


def generator(router: Router, stream: Stream, said: list[str] | None = None, **settings: Any) -> LoadGenerator:
    control = PaceControl(1.0, PaceLimits(0.5, 1.0), adaptive=False)
    told = said if said is not None else []
    return LoadGenerator(router.fleet, stream, LoadSettings(seed=7, **settings), control, told.append)


async def test_every_request_is_sent_once_and_its_answer_counted(router: Router) -> None:
    """In the stream's order where each is answered before the next is due; two that are under way at once may overtake."""
    summary = await generator(router, Stream(40)).run()
    assert sorted(router.users) == list(range(40))
    assert (summary["requests"], summary["answered"], summary["failures"], summary["shed"]) == (40, 40, 0, 0)
    assert summary["nodes"]["node-0"]["requests"] == 40
    assert (summary["workload"], summary["seed"], summary["kv_hit_ratio"]) == ("stream", 7, 1.0)


async def test_a_bad_answer_is_counted_by_its_reason_and_never_sent_again(router: Router) -> None:
    router.answers = {3: web.Response(status=500), 4: web.Response(status=429), 5: web.json_response({"outputs": []})}
    summary = await generator(router, Stream(10)).run()
    assert sorted(router.users) == list(range(10))
    assert summary["failures_by_reason"] == {"answer without scores": 1, "status 500": 1}
    assert (summary["shed"], summary["answered"]) == (1, 7)


async def test_arrivals_do_not_wait_for_answers(router: Router) -> None:
    """Open loop: the first request is never answered, all others are sent on time."""
    router.held_users = {0}
    summary = await generator(router, Stream(30)).run()
    assert len(router.bodies) == 30
    assert summary["answered"] == 29


async def test_requests_out_at_once_are_bounded(router: Router) -> None:
    router.held_users = set(range(100))
    load = generator(router, Stream(100, gap_ms=0.5), concurrency=8)
    run = asyncio.create_task(load.run())
    await router.seen(8)
    router.hold.set()
    assert (await run)["answered"] == 100
    assert router.out_max == 8


async def test_a_silent_router_is_a_timeout_and_a_dead_one_cannot_be_reached(router: Router) -> None:
    router.held_users = {0}
    summary = await generator(router, Stream(2, gap_ms=300.0), timeout_seconds=0.2).run()
    assert summary["failures_by_reason"] == {"timeout": 1}
    assert summary["answered"] == 1


async def test_stopping_ends_a_run_with_answers_still_out(router: Router) -> None:
    router.held_users = set(range(1_000))
    load = generator(router, Stream(1_000, gap_ms=50.0))
    run = asyncio.create_task(load.run())
    await router.seen(3)
    load.stop()
    summary = await asyncio.wait_for(run, 10.0)
    assert summary["answered"] == 0
    assert len(router.bodies) < 30


async def test_a_duration_ends_a_run_before_its_stream(router: Router) -> None:
    summary = await generator(router, Stream(100_000, gap_ms=20.0), duration_seconds=0.3).run()
    assert 0 < summary["requests"] < 100


async def test_a_router_that_never_becomes_ready_is_reported(router: Router) -> None:
    router.ready = False
    with pytest.raises(NotReady, match=r"not ready after 0\.3 s"):
        await generator(router, Stream(5), ready_seconds=0.3).run()
    assert router.bodies == []


async def test_a_router_that_becomes_ready_later_is_waited_for(router: Router) -> None:
    router.ready, router.ready_at_check = False, 3
    assert (await generator(router, Stream(5)).run())["answered"] == 5
    assert router.health_checks == 3


async def test_the_summary_has_what_the_nodes_say_of_themselves(router: Router) -> None:
    node = (await generator(router, Stream(5)).run())["nodes"]["node-0"]
    assert (node["emb_ratio"], node["emb_hit_ratio"], node["kv_hit_ratio"]) == (0.61, 0.7, 0.6)
    assert node["emb_ratio_min"] == node["emb_ratio_max"] == 0.61


async def test_the_status_file_is_whole_json_and_ends_as_done(router: Router, tmp_path: Path) -> None:
    path = tmp_path / "load.json"
    load = generator(router, Stream(1_000, gap_ms=10.0), duration_seconds=1.6, status_path=path)
    run = asyncio.create_task(load.run())
    phases = set()
    while not run.done():
        if path.exists():
            phases.add(json.loads(path.read_text())["phase"])
        await asyncio.sleep(0.02)
    summary = await run
    status = json.loads(path.read_text())
    assert {"running"} <= phases <= {"waiting", "running", "done"}
    assert status["phase"] == "done"
    assert status["requests_total"] == summary["requests"]
    assert status["latency_ms_p50"] is not None
    assert files(tmp_path) == [path]


def files(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def test_a_starved_machine_is_said_aloud_and_kept_out_of_the_calm_figures(router: Router) -> None:
    said: list[str] = []
    summary = await generator(router, Stream(200, gap_ms=8.0, stall_seconds=0.7), said).run()
    assert summary["saturated_seconds"] >= 1
    assert summary["generator_lag_ms_max"] > 250
    assert any(line.startswith("host saturated") for line in said)


async def test_a_backlog_of_seconds_is_dropped_from_the_schedule_and_not_sent_as_a_flood(router: Router) -> None:
    """After 1.3 s without the machine the stream goes on from there; catching up would send 65 requests at once."""
    stream = Stream(40, gap_ms=20.0, stall_seconds=1.3)
    load = generator(router, stream)
    begin = time.monotonic()
    await load.run()
    assert router.users == list(range(40))
    assert time.monotonic() - begin >= 1.3 + 29 * 0.020
