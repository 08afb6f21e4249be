"""Runs a table of processes: starts each when those it needs are healthy, restarts what dies, stops all in order."""

import asyncio
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import groupby

from helmctl.supervisor.backoff import backoff_seconds, deaths_now
from helmctl.supervisor.child import Child, log_path
from helmctl.supervisor.children import write_children
from helmctl.supervisor.health import wait_healthy
from helmctl.supervisor.logs import rotate, tail
from helmctl.supervisor.processes import Service
from helmctl.supervisor.state import StateFolder

HEALTH_PERIOD_SECONDS = 0.25
HOUSE_PERIOD_SECONDS = 5.0
START_SECONDS_MAX = 180.0  # a first start on a loaded two-core machine; a second one takes under 30
BAD_USAGE = 2  # a process that refuses its options will refuse them again
EARLY_DEATHS_MAX = 3  # dies this often before it was ever healthy: starting it again will not help
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Say = Callable[[str], None]


class Supervisor:
    """Owns the processes from `run` to its return. `say` gets one line per thing a person should know."""

    def __init__(
        self,
        table: Sequence[Service],
        state: StateFolder,
        say: Say,
        *,
        restart: bool = True,
        notices: Callable[[], str | None] = lambda: None,
        seed: int | None = None,
    ) -> None:
        self._table = list(table)
        self._state = state
        self._say = say
        self._restart = restart
        self._notices = notices  # asked now and then for something else a person should know
        self._chance = random.Random(seed)  # noqa: S311  spreads restarts, guards nothing
        self._children: dict[str, Child] = {}
        self._standbys: dict[str, Child] = {}
        self._standbys_lost: Counter[str] = Counter()
        self._serving: set[str] = set()  # healthy since their last start
        self._healthy = {service.name: asyncio.Event() for service in table}
        self._stopping = asyncio.Event()
        self._failed = False

    async def run(self, on_ready: Callable[[float], None]) -> int:
        """Run until a signal; call `on_ready(seconds)` once when all is up. Exit code: 0 asked to stop, 1 could not start."""
        began_seconds = time.monotonic()
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self.request_stop)
        keepers = [asyncio.create_task(self._keep(service)) for service in self._table]
        keepers.append(asyncio.create_task(self._keep_house()))
        try:
            if await self._all_healthy():
                on_ready(time.monotonic() - began_seconds)
                await self._stopping.wait()
        finally:
            for keeper in keepers:
                keeper.cancel()
            results = await asyncio.gather(*keepers, return_exceptions=True)
            await self._stop_all()
            for number in STOP_SIGNALS:
                loop.remove_signal_handler(number)
        for result in results:
            if isinstance(result, Exception):
                raise result
        return 1 if self._failed else 0

    def request_stop(self) -> None:
        """Begin to stop; `run` returns when nothing runs any more."""
        self._stopping.set()

    async def _all_healthy(self) -> bool:
        """Whether everything came up before a stop was asked for or time ran out."""
        up = asyncio.create_task(self._wait_healthy())
        stopped = asyncio.create_task(self._stopping.wait())
        await asyncio.wait({up, stopped}, timeout=START_SECONDS_MAX, return_when=asyncio.FIRST_COMPLETED)
        ready = up.done() and not self._stopping.is_set()
        if not ready and not self._stopping.is_set():
            waiting = [name for name, event in self._healthy.items() if not event.is_set()]
            self._give_up(waiting, f"is not healthy after {START_SECONDS_MAX:.0f} s")
        up.cancel()
        stopped.cancel()
        await asyncio.gather(up, stopped, return_exceptions=True)
        return ready

    async def _wait_healthy(self) -> None:
        for event in self._healthy.values():
            await event.wait()

    async def _keep(self, service: Service) -> None:
        """Life of one row: wait for what it needs, then start it as often as it dies."""
        for name in service.needs:
            await self._healthy[name].wait()
        deaths = 0
        while True:
            began_seconds = time.monotonic()
            status = await self._live_once(service)
            lived_seconds = time.monotonic() - began_seconds
            deaths = deaths_now(deaths, lived_seconds)
            if not self._healthy[service.name].is_set() and (deaths >= EARLY_DEATHS_MAX or status == BAD_USAGE):
                self._give_up([service.name], f"ended {'once' if deaths == 1 else f'{deaths} times'} while starting ({describe(status)})")
                return
            if not self._restart and self._healthy[service.name].is_set():
                self._say(f"{service.name} ended ({describe(status)}); it stays down, as asked.")
                return
            if deaths == 1 and self._has_standby(service):
                self._say(f"{service.name} ended ({describe(status)}); its standby takes over.")
                continue
            wait_seconds = backoff_seconds(deaths, self._chance.random())
            self._say(f"{service.name} ended ({describe(status)}); starting it again in {wait_seconds:.1f} s.")
            await asyncio.sleep(wait_seconds)

    async def _live_once(self, service: Service) -> int:
        """Start, watch until healthy, wait for the end; return the exit status."""
        child = await self._start(service)
        was_healthy = self._healthy[service.name].is_set()
        watcher = asyncio.create_task(self._watch_until_healthy(service, was_healthy))
        try:
            return await child.wait()
        finally:
            watcher.cancel()
            self._serving.discard(service.name)

    async def _start(self, service: Service) -> Child:
        """The standby if there is one, else a new process."""
        if not self._has_standby(service):
            return await self._launch(service)
        child = self._children[service.name] = self._standbys.pop(service.name)
        child.take_over()
        self._record()
        return child

    async def _launch(self, service: Service, *, standing_by: bool = False) -> Child:
        """Start and record; a stop that arrives meanwhile waits for the record, or the process would be forgotten."""
        among = self._standbys if standing_by else self._children
        starting = asyncio.create_task(Child.start(service, self._state, standing_by=standing_by))
        try:
            await asyncio.shield(starting)
        finally:
            among[service.name] = await starting
            self._record()
        return among[service.name]

    def _has_standby(self, service: Service) -> bool:
        return service.name in self._standbys and self._standbys[service.name].alive

    async def _watch_until_healthy(self, service: Service, again: bool) -> None:
        if service.health_url is not None:
            await wait_healthy(service.health_url, HEALTH_PERIOD_SECONDS)
        self._healthy[service.name].set()
        self._serving.add(service.name)
        if again:
            self._say(f"{service.name} is back.")

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(HOUSE_PERIOD_SECONDS)
            for service in self._table:
                rotate(log_path(service.name, self._state))
                await self._keep_standby(service)
            if notice := self._notices():
                self._say(notice)

    async def _keep_standby(self, service: Service) -> None:
        """Start one where it is wanted and missing, once everything is up: until then the cores have better things to do."""
        wanted = self._restart and bool(service.standby) and service.name in self._serving
        all_up = all(event.is_set() for event in self._healthy.values())
        if not wanted or not all_up or self._has_standby(service):
            return
        if self._standbys.pop(service.name, None) is not None:
            self._standbys_lost[service.name] += 1
            if self._standbys_lost[service.name] == EARLY_DEATHS_MAX:
                self._say(f"The standby of {service.name} ended {EARLY_DEATHS_MAX} times; none is kept any more.")
        if self._standbys_lost[service.name] < EARLY_DEATHS_MAX:
            await self._launch(service, standing_by=True)

    async def _stop_all(self) -> None:
        """Stop those of one order together, lower orders first."""
        by_order = sorted([*self._children.values(), *self._standbys.values()], key=lambda child: child.service.stop_order)
        for _, group in groupby(by_order, key=lambda child: child.service.stop_order):
            await asyncio.gather(*(child.stop() for child in group))
        self._children.clear()
        self._standbys.clear()
        self._state.children_file.unlink(missing_ok=True)

    def _record(self) -> None:
        standbys = {f"standby of {name}": child.pid for name, child in self._standbys.items()}
        write_children(self._state.children_file, {name: child.pid for name, child in self._children.items()} | standbys)

    def _give_up(self, names: Sequence[str], why: str) -> None:
        self._failed = True
        for name in names:
            path = log_path(name, self._state)
            self._say(f"{name} {why}; its log is {path}:")
            for line in tail(path):
                self._say(f"  {line}")
        self._stopping.set()


def describe(status: int) -> str:
    """`exit code 3`, or the name of the signal."""
    return signal.Signals(-status).name if status < 0 else f"exit code {status}"
