"""The rows of `helmctl up` on one machine: ready means that worker and beat have said that they live."""

import asyncio
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from helmctl.supervisor.bus import Bus, find_bus, remove_socket
from helmctl.supervisor.control_plane import prepare_database
from helmctl.supervisor.health import alive_key, is_healthy, wait_healthy
from helmctl.supervisor.plan import Plan
from helmctl.supervisor.processes import control_plane_env, services
from helmctl.supervisor.state import StateFolder
from helmctl.supervisor.supervisor import Supervisor
from tests.patience import free_port

pytestmark = pytest.mark.live
CONTROL = ("redis", "web", "worker", "beat")


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    folder = StateFolder(tmp_path / "a state folder")
    folder.prepare()
    return folder


@pytest.fixture
def bus(state: StateFolder, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bus]:
    monkeypatch.delenv("REDIS_URL", raising=False)
    monkeypatch.setenv("DATABASE_URL", "")
    with tempfile.TemporaryDirectory(prefix="helm-u-", dir="/tmp") as short:
        monkeypatch.setattr(tempfile, "tempdir", short)
        found = find_bus(state, os.environ)
        yield found
        remove_socket(found)


async def test_the_control_plane_is_ready_when_worker_and_beat_live(state: StateFolder, bus: Bus) -> None:
    plan = Plan(nodes=1, web_port=free_port())
    prepare_database(control_plane_env(plan, state, bus), [])
    table = [row for row in services(plan, state, "up", bus) if row.name in CONTROL]
    said: list[str] = []
    supervisor = Supervisor(table, state, said.append, restart=False, seed=1)
    urls = {row.name: str(row.health_url) for row in table}
    seen: dict[str, bool] = {}

    async def look() -> None:
        seen.update({name: await is_healthy(url) for name, url in urls.items()})
        supervisor.request_stop()

    looking: list[asyncio.Task[None]] = []
    code = await supervisor.run(lambda seconds: looking.append(asyncio.create_task(look())))
    assert (code, said) == (0, [])
    assert seen == dict.fromkeys(CONTROL, True)
    assert not await is_healthy(urls["worker"])


async def test_a_sign_of_life_is_asked_for_by_name_in_the_database_that_the_address_names(state: StateFolder, bus: Bus) -> None:
    import redis

    (row,) = services(Plan(nodes=1), state, "up", bus)[:1]
    process = await asyncio.create_subprocess_exec(*row.command, stdout=asyncio.subprocess.DEVNULL)
    try:
        async with asyncio.timeout(20):
            await wait_healthy(bus.url, 0.05)
        third = redis.Redis.from_url(f"{bus.url}?db=3")
        third.set(alive_key("beat"), 1)
        asked = {url: await is_healthy(url) for url in (f"{bus.url}?db=3#beat", f"{bus.url}?db=3#worker", f"{bus.url}#beat", bus.url)}
        assert list(asked.values()) == [True, False, False, True]
        wrong = bus.url.replace("unix://:", "unix://:wrong")
        assert not await is_healthy(wrong)
    finally:
        process.kill()
        await process.wait()
