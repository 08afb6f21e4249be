"""The embedded Redis: who is chosen, where its socket lies, and that a killed one comes back with its data."""

import asyncio
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from helmctl.supervisor.bus import MISSING, SOCKET_PATH_BYTES_MAX, Bus, configuration, find_bus, find_server, remove_socket, socket_folder
from helmctl.supervisor.children import living_children
from helmctl.supervisor.health import is_healthy
from helmctl.supervisor.processes import redis
from helmctl.supervisor.refusal import Refusal
from helmctl.supervisor.state import StateFolder
from helmctl.supervisor.supervisor import Supervisor

PATH = {"PATH": os.environ["PATH"]}


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    folder = StateFolder(tmp_path / ("a long path with spaces " + "x" * 100) / "state")
    folder.prepare()
    return folder


@pytest.fixture
def bus(state: StateFolder) -> Iterator[Bus]:
    found = find_bus(state, PATH)
    yield found
    remove_socket(found)


def test_a_given_redis_is_used_and_none_is_started(state: StateFolder) -> None:
    found = find_bus(state, {"REDIS_URL": "redis://db.example:6379/1"})
    assert found == Bus(url="redis://db.example:6379/1")
    assert redis(found) == []


def test_a_server_on_the_path_comes_before_the_packages(tmp_path: Path) -> None:
    own = tmp_path / "valkey-server"
    own.write_text("#!/bin/sh\n")
    own.chmod(0o755)
    assert find_server({"PATH": str(tmp_path)}) == str(own)
    packaged = find_server({"PATH": str(tmp_path / "empty")})
    assert packaged is not None and packaged != str(own)


def test_no_redis_at_all_is_one_line(state: StateFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("helmctl.supervisor.bus.find_server", lambda environ: None)
    with pytest.raises(Refusal) as refused:
        find_bus(state, {})
    assert str(refused.value) == MISSING
    assert "\n" not in MISSING


def test_the_socket_is_short_whatever_the_clones_path(bus: Bus) -> None:
    assert bus.socket is not None
    assert len(os.fsencode(bus.socket)) <= SOCKET_PATH_BYTES_MAX
    assert bus.socket.parent.stat().st_mode & 0o777 == 0o700


def test_a_long_temporary_folder_is_not_used_for_the_socket(state: StateFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("t" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    folder = socket_folder(state)
    assert len(os.fsencode(folder / "redis.sock")) <= SOCKET_PATH_BYTES_MAX
    folder.rmdir()


def test_a_socket_folder_that_others_can_enter_is_refused(state: StateFolder) -> None:
    folder = socket_folder(state)
    folder.chmod(0o755)
    with pytest.raises(Refusal, match="is not a private folder of ours"):
        socket_folder(state)
    folder.rmdir()


def test_the_password_is_private_and_stays_the_same(state: StateFolder, bus: Bus) -> None:
    assert bus.config_file is not None
    assert find_bus(state, PATH).url == bus.url
    assert bus.config_file.stat().st_mode & 0o777 == 0o600
    assert (state.root / "redis/password").stat().st_mode & 0o777 == 0o600
    assert (state.root / "redis/password").read_text() in bus.config_file.read_text()
    assert (state.root / "redis/password").read_text() not in " ".join(redis(bus)[0].command)


def test_nothing_listens_on_tcp_and_paths_are_quoted() -> None:
    lines = configuration(Path("/t/r.sock"), Path('/a "b" c'), "word").splitlines()
    assert "port 0" in lines
    assert 'dir "/a \\"b\\" c"' in lines
    assert "maxmemory-policy noeviction" in lines


async def test_a_killed_redis_comes_back_with_what_it_was_told(state: StateFolder, bus: Bus) -> None:
    said: list[str] = []
    ready = asyncio.Event()
    supervisor = Supervisor(redis(bus), state, said.append, seed=1)
    run = asyncio.create_task(supervisor.run(lambda seconds: ready.set()))
    async with asyncio.timeout(30):
        await ready.wait()
        client = Redis.from_url(bus.url)
        await client.set("kept", "yes")
        await client.bgrewriteaof()  # the quickest way to have it on the disk
        while (await client.info("persistence"))["aof_rewrite_in_progress"]:  # noqa: ASYNC110  in another process
            await asyncio.sleep(0.02)
        await client.aclose()
        os.kill(living_children(state.children_file)["redis"], signal.SIGKILL)
        while "redis is back." not in said:  # noqa: ASYNC110  what we wait for happens in another process
            await asyncio.sleep(0.02)
        client = Redis.from_url(bus.url)
        assert await client.get("kept") == b"yes"
        await client.aclose()
        assert not await is_healthy(bus.url.replace("unix://:", "unix://:wrong"))
        supervisor.request_stop()
        assert await run == 0
    assert bus.socket is not None and not bus.socket.exists()
