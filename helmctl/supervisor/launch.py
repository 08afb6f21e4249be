"""The start of a system: take the lock, look at the machine, write the fleet file, supervise until told to stop."""

import asyncio
import time
from collections.abc import Callable

from agents.profiles import load_profile
from helmctl.supervisor.children import stop_leftovers
from helmctl.supervisor.fleet_file import write_fleet_file
from helmctl.supervisor.lock import InstanceLock
from helmctl.supervisor.machine import refuse_taken_ports
from helmctl.supervisor.plan import LOG_SUFFIXES, Plan
from helmctl.supervisor.processes import Service, services
from helmctl.supervisor.refusal import Refusal
from helmctl.supervisor.saturation import SaturationWatch
from helmctl.supervisor.state import StateFolder
from helmctl.supervisor.supervisor import Supervisor

Tabulate = Callable[[Plan, StateFolder, str], list[Service]]


def launch(plan: Plan, state: StateFolder, profile: str, say: Callable[[str], None], tabulate: Tabulate = services) -> int:
    """Run `profile` (`fleet` or `up`) of `plan`; exit code as `Supervisor.run`. Raises `Refusal` before anything starts."""
    refuse_unknown_names(plan)
    state.prepare()
    with InstanceLock(state.lock_file):
        for name in stop_leftovers(state.children_file):
            say(f"Stopped {name}, left over from a run that was killed.")
        table = tabulate(plan, state, profile)
        refuse_taken_ports(table)
        write_fleet_file(state.fleet_file, plan)
        say(f"Starting {len(table)} processes; logs in {state.logs}")
        supervisor = Supervisor(table, state, say, restart=plan.restart, notices=SaturationWatch(state.load_file, time.time_ns))
        code = asyncio.run(supervisor.run(lambda seconds: say(ready_block(plan, state, seconds))))
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


def ready_block(plan: Plan, state: StateFolder, seconds: float) -> str:
    """What a person needs once everything answers."""
    first, last = plan.node_ports[0], plan.node_ports[-1]
    load = "none (start one with: .venv/bin/helmctl load)" if plan.workload == "none" else plan.workload
    return "\n".join(
        [
            "",
            f"HELM is ready after {seconds:.1f} s",
            f"  router   http://{plan.dial_host}:{plan.router_port}/v2",
            f"  nodes    {plan.nodes}, http://127.0.0.1:{first}" + (f" to :{last}" if last != first else ""),
            f"  load     {load}",
            "  watch    .venv/bin/helmctl top",
            "  stop     Ctrl-C here, or .venv/bin/helmctl down",
            f"  logs     {state.logs}",
            "",
        ]
    )
