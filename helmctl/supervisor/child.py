"""One supervised process: started in its own group, its output in its log, ended politely and then for certain."""

import asyncio
import os
import signal
from pathlib import Path

from helmctl.supervisor.children import signal_group
from helmctl.supervisor.logs import open_log
from helmctl.supervisor.processes import Service
from helmctl.supervisor.state import ROOT, StateFolder

CALL_UP = b"serve\n"  # on the standard input of a process that stands by
KILL_SECONDS = 5.0  # the kernel's time to take back a killed process's memory


class Child:
    """A running `Service`. Make it with `start`."""

    def __init__(self, service: Service, process: asyncio.subprocess.Process) -> None:
        self.service = service
        self._process = process

    @classmethod
    async def start(cls, service: Service, state: StateFolder, *, standing_by: bool = False) -> "Child":
        """Start the process; it gets no terminal, so Ctrl-C reaches the supervisor alone.

        One that stands by loads what it needs and waits for `take_over`; it ends when this process does.
        """
        with open_log(log_path(service.name, state)) as log:
            process = await asyncio.create_subprocess_exec(
                *service.command,
                *(service.standby if standing_by else ()),
                cwd=ROOT,
                env={**os.environ, **service.env},
                stdin=asyncio.subprocess.PIPE if standing_by else asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return cls(service, process)

    @property
    def pid(self) -> int:
        """Process id, also that of its group."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether its end has not been seen yet."""
        return self._process.returncode is None

    def take_over(self) -> None:
        """Tell one that stands by to serve."""
        if self._process.stdin is not None:
            self._process.stdin.write(CALL_UP)
            self._process.stdin.close()

    async def wait(self) -> int:
        """Exit status; a negative one is the signal that ended it. What its group leaves behind ends with it."""
        status = await self._process.wait()
        signal_group(self.pid, signal.SIGKILL)
        return status

    async def stop(self) -> None:
        """SIGTERM to the process, which knows how to end its own helpers; SIGKILL to the group when it takes too long."""
        if not self.alive:
            return
        self._process.terminate()
        try:
            await asyncio.wait_for(self.wait(), self.service.stop_seconds)
        except TimeoutError:
            signal_group(self.pid, signal.SIGKILL)
            await asyncio.wait_for(self.wait(), KILL_SECONDS)


def log_path(name: str, state: StateFolder) -> Path:
    """Where a process's output goes."""
    return state.logs / f"{name}.log"
