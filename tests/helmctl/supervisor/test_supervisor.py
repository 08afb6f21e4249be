"""The supervisor with small real processes: an HTTP server each, written here, that writes down what happens to it."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from helmctl.supervisor import supervisor
from helmctl.supervisor.children import living_children, stop_leftovers, write_children
from helmctl.supervisor.processes import Service
from helmctl.supervisor.state import StateFolder
from helmctl.supervisor.supervisor import Supervisor, describe
from tests.patience import free_port

SERVER = """
import http.server, pathlib, signal, sys
port, diary = int(sys.argv[1]), pathlib.Path(sys.argv[2])
asked = diary.with_name(sys.argv[3] + " was asked")
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
        asked.touch()
    def log_message(self, *_): pass
def leave(*_):
    with diary.open("a") as file: file.write(sys.argv[3] + "\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
if "--standby" in sys.argv and not sys.stdin.readline(): sys.exit(0)
http.server.HTTPServer(("127.0.0.1", port), Answer).serve_forever()
"""
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    folder = StateFolder(tmp_path / "state with a space")
    folder.prepare()
    return folder


@pytest.fixture
def quick_house(monkeypatch: pytest.MonkeyPatch) -> None:
    """Standbys are looked after as often as a test can wait for."""
    monkeypatch.setattr(supervisor, "HOUSE_PERIOD_SECONDS", 0.05)


def server(name: str, state: StateFolder, *, stop_order: int = 0, needs: tuple[str, ...] = (), standby: tuple[str, ...] = ()) -> Service:
    port = free_port()
    return Service(
        name=name,
        command=(sys.executable, "-c", SERVER, str(port), str(state.root / "diary"), name),
        health_url=f"http://127.0.0.1:{port}/",
        stop_order=stop_order,
        needs=needs,
        standby=standby,
    )


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110  what we wait for happens in another process
            await asyncio.sleep(0.02)


class Run:
    """A supervisor running in a task, what it said, and the moment it is ready."""

    def __init__(self, table: list[Service], state: StateFolder, *, restart: bool = True) -> None:
        self.rounds = 0
        self.said: list[str] = []
        self.state = state
        self.ready = asyncio.Event()
        self.supervisor = Supervisor(table, state, self.said.append, restart=restart, notices=self._note_round, seed=1)
        self.task = asyncio.create_task(self.supervisor.run(lambda seconds: self.ready.set()))

    async def until_ready(self) -> None:
        async with asyncio.timeout(30):
            await self.ready.wait()

    async def until_said(self, words: str) -> None:
        await until(lambda: any(words in line for line in self.said))

    def _note_round(self) -> None:
        self.rounds += 1

    async def until_looked_after(self) -> None:
        """The house has been kept twice more, so at least once from beginning to end."""
        enough = self.rounds + 2
        await until(lambda: self.rounds >= enough)

    async def stop(self) -> int:
        self.supervisor.request_stop()
        async with asyncio.timeout(30):
            return await self.task

    def pid(self, name: str) -> int:
        return living_children(self.state.children_file)[name]

    def pid_or_none(self, name: str) -> int | None:
        return living_children(self.state.children_file).get(name)


async def test_everything_is_up_before_it_says_ready_and_gone_when_it_returns(state: StateFolder) -> None:
    run = Run([server("a", state), server("b", state)], state)
    await run.until_ready()
    pids = [run.pid("a"), run.pid("b")]
    assert await run.stop() == 0
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert not state.children_file.exists()
    assert run.said == []


async def test_a_killed_process_is_started_again_under_the_same_name(state: StateFolder) -> None:
    run = Run([server("a", state), server("b", state)], state)
    await run.until_ready()
    first, neighbour = run.pid("a"), run.pid("b")
    os.kill(first, signal.SIGKILL)
    await run.until_said("a is back.")
    assert run.pid("a") != first
    assert run.pid("b") == neighbour
    assert run.said[0].startswith("a ended (SIGKILL); starting it again in 0.")
    assert await run.stop() == 0


async def test_a_killed_process_stays_down_when_nothing_shall_be_restarted(state: StateFolder) -> None:
    run = Run([server("a", state), server("b", state)], state, restart=False)
    await run.until_ready()
    os.kill(run.pid("a"), signal.SIGKILL)
    await run.until_said("a ended (SIGKILL); it stays down, as asked.")
    assert list(living_children(state.children_file)) == ["b"]
    assert await run.stop() == 0


async def test_a_standby_takes_over_at_once_from_the_process_that_died_and_another_is_kept(state: StateFolder, quick_house: None) -> None:
    run = Run([server("a", state, standby=("--standby",)), server("b", state)], state)
    await run.until_ready()
    await until(lambda: "standby of a" in living_children(state.children_file))
    standby = run.pid("standby of a")
    os.kill(run.pid("a"), signal.SIGKILL)
    await run.until_said("a is back.")
    assert run.pid("a") == standby
    assert run.said == ["a ended (SIGKILL); its standby takes over.", "a is back."]
    await until(lambda: run.pid_or_none("standby of a") not in (None, standby))
    assert "standby of b" not in living_children(state.children_file)
    pids = [run.pid("a"), run.pid("standby of a")]
    assert await run.stop() == 0
    assert not any(psutil.pid_exists(pid) for pid in pids)


async def test_a_process_whose_standby_died_unseen_is_started_anew(state: StateFolder, quick_house: None) -> None:
    run = Run([server("a", state, standby=("--standby",)), server("b", state)], state)
    await run.until_ready()
    await until(lambda: "standby of a" in living_children(state.children_file))
    first, standby = run.pid("a"), run.pid("standby of a")
    os.kill(standby, signal.SIGKILL)
    os.kill(first, signal.SIGKILL)
    await run.until_said("a is back.")
    assert run.pid("a") not in (first, standby)
    assert await run.stop() == 0


async def test_a_standby_that_cannot_stand_by_is_not_started_for_ever(state: StateFolder, quick_house: None) -> None:
    run = Run([server("a", state, standby=("--standby",))], state)
    await run.until_ready()
    seen: set[int] = set()

    def another() -> bool:
        pid = run.pid_or_none("standby of a")
        if pid is None or pid in seen:
            return False
        seen.add(pid)
        os.kill(pid, signal.SIGKILL)
        return True

    for _ in range(3):
        await until(another)
    await run.until_said("The standby of a ended 3 times; none is kept any more.")
    await run.until_looked_after()
    assert run.pid_or_none("standby of a") is None
    assert await run.stop() == 0


async def test_a_second_death_in_a_row_waits_though_a_standby_is_there(state: StateFolder, quick_house: None) -> None:
    run = Run([server("a", state, standby=("--standby",))], state)
    await run.until_ready()
    for ending in ("its standby takes over.", "starting it again in"):
        await until(lambda: "standby of a" in living_children(state.children_file))
        os.kill(run.pid("a"), signal.SIGKILL)
        await run.until_said(f"a ended (SIGKILL); {ending}")
    assert await run.stop() == 0


async def test_no_standby_is_started_before_everything_is_up(state: StateFolder, quick_house: None) -> None:
    slow = Service(name="slow", command=(sys.executable, "-c", "import time; time.sleep(600)"), health_url="http://127.0.0.1:9/")
    run = Run([server("a", state, standby=("--standby",)), slow], state)
    await until((state.root / "a was asked").exists)
    await run.until_looked_after()
    assert set(living_children(state.children_file)) == {"a", "slow"}
    assert await run.stop() == 0


async def test_no_standby_is_kept_where_nothing_shall_be_restarted(state: StateFolder, quick_house: None) -> None:
    run = Run([server("a", state, standby=("--standby",))], state, restart=False)
    await run.until_ready()
    await run.until_looked_after()
    assert list(living_children(state.children_file)) == ["a"]
    assert await run.stop() == 0


async def test_a_process_that_cannot_start_ends_the_run_with_its_last_words(state: StateFolder) -> None:
    broken = Service(name="broken", command=(sys.executable, "-c", "raise SystemExit('no such profile')"), health_url="http://127.0.0.1:9/")
    run = Run([server("a", state), broken], state)
    async with asyncio.timeout(30):
        assert await run.task == 1
    assert not run.ready.is_set()
    assert any("broken ended 3 times while starting (exit code 1)" in line for line in run.said)
    assert run.said[-1] == "  no such profile"


async def test_who_asks_stops_before_who_answers(state: StateFolder) -> None:
    run = Run([server("answers", state, stop_order=2), server("asks", state, stop_order=1), server("first", state)], state)
    await run.until_ready()
    await run.stop()
    assert (state.root / "diary").read_text().split() == ["first", "asks", "answers"]


async def test_a_process_waits_for_those_it_needs(state: StateFolder) -> None:
    base = server("base", state)
    port = base.health_url.split(":")[2].strip("/") if base.health_url else ""
    probe = f"import urllib.request as r, time; r.urlopen('http://127.0.0.1:{port}/'); print('reached', flush=True); time.sleep(600)"
    run = Run([Service(name="needy", command=(sys.executable, "-c", probe), needs=("base",)), base], state)
    await run.until_ready()
    await until(lambda: b"reached" in (state.logs / "needy.log").read_bytes())
    assert await run.stop() == 0
    assert run.said == []


async def test_a_process_that_ignores_the_polite_signal_is_killed(state: StateFolder) -> None:
    run = Run([Service(name="stubborn", command=(sys.executable, "-c", STUBBORN), stop_seconds=0.2)], state)
    await run.until_ready()
    await until(lambda: b"up" in (state.logs / "stubborn.log").read_bytes())
    pid = run.pid("stubborn")
    assert await run.stop() == 0
    assert not psutil.pid_exists(pid)


async def test_helpers_of_a_process_end_with_it(state: StateFolder) -> None:
    parent = "import subprocess, time; print(subprocess.Popen(['sleep', '600']).pid, flush=True); time.sleep(600)"
    run = Run([Service(name="parent", command=(sys.executable, "-c", parent))], state)
    await run.until_ready()
    log = state.logs / "parent.log"
    await until(lambda: log.read_text().endswith("\n"))
    helper = psutil.Process(int(log.read_text()))
    await run.stop()
    gone = helper.wait(timeout=10) if helper.is_running() else None
    assert gone is None
    assert not helper.is_running()


async def test_a_stop_while_starting_is_obeyed(state: StateFolder) -> None:
    slow = Service(
        name="slow", command=(sys.executable, "-c", "import time; time.sleep(600)"), health_url=f"http://127.0.0.1:{free_port()}/"
    )
    run = Run([slow], state)
    await until(lambda: state.children_file.exists())
    pid = run.pid("slow")
    assert await run.stop() == 0
    assert not run.ready.is_set()
    assert not psutil.pid_exists(pid)


async def test_leftovers_of_a_killed_supervisor_are_ended_and_strangers_are_not(state: StateFolder) -> None:
    left = await asyncio.create_subprocess_exec(sys.executable, "-c", "import time; time.sleep(600)", start_new_session=True)
    stranger = await asyncio.create_subprocess_exec(sys.executable, "-c", "import time; time.sleep(600)", start_new_session=True)
    write_children(state.children_file, {"node-0": left.pid})
    text = state.children_file.read_text()
    started = text.split(",")[1].strip(" ]}")
    state.children_file.write_text(text[:-1] + f', "node-1": [{stranger.pid}, {float(started) - 100}]}}')
    assert await asyncio.to_thread(stop_leftovers, state.children_file) == ["node-0"]
    assert await left.wait() == -signal.SIGTERM
    assert stranger.returncode is None
    stranger.kill()
    await stranger.wait()


def test_an_end_is_described_by_its_signal_or_its_code() -> None:
    assert describe(-9) == "SIGKILL"
    assert describe(3) == "exit code 3"
