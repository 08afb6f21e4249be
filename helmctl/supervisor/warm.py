"""Compile every kernel once, into the state folder: `python -m helmctl.supervisor.warm`."""

import importlib
import importlib.util
import shutil
import time
from collections.abc import Callable

from helmctl.supervisor.state import StateFolder, find_state_folder

WARMERS = ("agents.node.warm", "agents.router.warm", "agents.sim.warm")
DAEMONS = ("agents.runtime.node_main", "agents.runtime.router_main", "agents.runtime.load_main")  # importing them writes their bytecode

COMPLETE = "complete"  # marks a folder in which every warmer has run


def present_warmers(names: tuple[str, ...] = WARMERS) -> list[str]:
    """Those of `names` that can be imported."""
    return [name for name in names if importlib.util.find_spec(name) is not None]


def warm_up(state: StateFolder, say: Callable[[str], None] = lambda _: None) -> float:
    """Call each warmer with Numba's cache in `state`, unless that was done; return the seconds it took."""
    began_seconds = time.monotonic()
    if (state.kernels / COMPLETE).exists():
        return 0.0
    for stale in (state.root / "numba").glob("*"):
        if stale != state.kernels:
            shutil.rmtree(stale, ignore_errors=True)
    state.prepare()
    state.adopt_caches()
    names = present_warmers()
    for number, name in enumerate(names, 1):
        say(f"HELM: compiling kernels, {number} of {len(names)}: {name.split('.')[1]}; once, two to four minutes in all")
        importlib.import_module(name).warm_up()
    for name in DAEMONS:
        importlib.import_module(name)
    (state.kernels / COMPLETE).touch()
    return time.monotonic() - began_seconds


if __name__ == "__main__":
    seconds = warm_up(find_state_folder(), lambda line: print(line, flush=True))
    print(f"HELM: kernels ready after {seconds:.1f} s")
