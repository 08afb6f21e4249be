"""The start of a system: take the lock, look at the machine, write the fleet file, supervise until told to stop."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable

from agents.profiles import load_profile
from helmctl.supervisor.bus import Bus, find_bus, remove_socket
from helmctl.supervisor.children import stop_leftovers
from helmctl.supervisor.console import build_console
from helmctl.supervisor.control_plane import Seeded, prepare_database
from helmctl.supervisor.fleet_file import write_fleet_file
from helmctl.supervisor.lock import InstanceLock
from helmctl.supervisor.machine import refuse_taken_ports
from helmctl.supervisor.plan import LOG_SUFFIXES, LOOPBACK, Plan, dial_host
from helmctl.supervisor.processes import Service, control_plane_env, services
from helmctl.supervisor.refusal import Refusal
from helmctl.supervisor.saturation import SaturationWatch
from helmctl.supervisor.state import StateFolder
from helmctl.supervisor.supervisor import Supervisor

Tabulate = Callable[[Plan, StateFolder, str, Bus | None], list[Service]]
Say = Callable[[str], None]


def launch(plan: Plan, state: StateFolder, profile: str, say: Say, tabulate: Tabulate = services) -> int:
    """Run `profile` (`fleet` or `up`) of `plan`; exit code as `Supervisor.run`. Raises `Refusal` before anything stays started."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # until the supervisor takes over: end what is being prepared, too
    refuse_unknown_names(plan)
    state.prepare()
    with InstanceLock(state.lock_file):
        for name in stop_leftovers(state.children_file):
            say(f"Stopped {name}, left over from a run that was killed.")
        bus = find_bus(state, os.environ) if profile == "up" else None
        try:
            return _run(plan, state, profile, say, tabulate(plan, state, profile, bus), bus)
        finally:
            if bus is not None:
                remove_socket(bus)


def _run(plan: Plan, state: StateFolder, profile: str, say: Say, table: list[Service], bus: Bus | None) -> int:
    refuse_taken_ports(table)
    write_fleet_file(state.fleet_file, plan)
    seeded = None
    if bus is not None:
        build_console(state, say, os.environ)
        say("Preparing the database")
        seeded = prepare_database(control_plane_env(plan, state, bus), plan.node_names)
    say(f"Starting {len(table)} processes; logs in {state.logs}")
    notices = SaturationWatch(state.load_file, time.time_ns)
    supervisor = Supervisor(table, state, say, restart=plan.restart, notices=notices)
    code = asyncio.run(supervisor.run(lambda seconds: say(ready_block(plan, state, seconds, seeded))))
    say("Stopped." if code == 0 else "Stopped: HELM could not start.")
    return code


def refuse_unknown_names(plan: Plan) -> None:
    """Raise `Refusal` for a workload or profile that does not exist: the daemons would only die of it, one by one."""
    from agents.workloads.demo import REGIMES

    if plan.trace:
        if not plan.trace.is_file():
            raise Refusal(f"WORKLOAD={plan.workload}: there is no such file.")
    elif plan.workload not in (*REGIMES, "none"):
        raise Refusal(f"WORKLOAD={plan.workload}: choose {', '.join(REGIMES)}, a log ({', '.join(LOG_SUFFIXES)}), or none.")
    try:
        load_profile(plan.profile)
    except ValueError as error:
        raise Refusal(str(error)) from None


def ready_block(plan: Plan, state: StateFolder, seconds: float, seeded: Seeded | None = None) -> str:
    """What a person needs once everything answers."""
    first, last = plan.node_ports[0], plan.node_ports[-1]
    load = "none (start one with: .venv/bin/helmctl load)" if plan.workload == "none" else plan.workload
    rows = [
        *([] if seeded is None else _console_rows(plan, seeded)),
        ("router", f"http://{plan.dial_host}:{plan.router_port}/v2"),
        ("nodes", f"{plan.nodes}, http://127.0.0.1:{first}" + (f" to :{last}" if last != first else "")),
        ("load", load),
        ("watch", ".venv/bin/helmctl top"),
        ("stop", "Ctrl-C here, or .venv/bin/helmctl down"),
        ("logs", str(state.logs)),
    ]
    lines = [f"  {name:<9}{value}" for name, value in rows]
    return "\n".join(["", f"HELM is ready after {seconds:.1f} s", *lines, ""])


def _console_rows(plan: Plan, seeded: Seeded) -> list[tuple[str, str]]:
    """Where to sign in. The password is shown in the start that made it, and never again."""
    own = (
        seeded.url
        if dial_host(plan.host) == plan.host
        else f"http://{socket.gethostname()}:{plan.web_port} (from here: http://{LOOPBACK}:{plan.web_port})"
    )
    password = seeded.password or "as shown at the first start (.venv/bin/python manage.py changepassword admin sets another)"
    return [("console", own), ("user", seeded.username), ("password", password)]
