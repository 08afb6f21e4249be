"""The table of HELM's processes: names, commands, environments, health checks, stop order. The only place that has them."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

from helmctl.supervisor.plan import LOOPBACK, Plan
from helmctl.supervisor.state import StateFolder

FLEET = frozenset({"fleet", "up"})
THREAD_COUNTS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS", "NUMBA_NUM_THREADS")
ONE_THREAD = dict.fromkeys(THREAD_COUNTS, "1")  # a node with more would take its neighbours' cores and falsify their latencies


@dataclass(frozen=True, kw_only=True)
class Service:
    """One process. `env` is added to the starter's own environment."""

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    health_url: str | None = None  # answers when the process can do its work; None: being alive is enough
    needs: tuple[str, ...] = ()  # names of those that must be healthy before this one starts
    stop_order: int = 0  # lower numbers stop first: who asks before who answers
    stop_seconds: float = 8.0  # from SIGTERM to SIGKILL
    profiles: frozenset[str] = FLEET
    ports: tuple[tuple[str, int, str], ...] = ()  # host, port, and the variable that moves it


def services(plan: Plan, state: StateFolder, profile: str, python: str = sys.executable) -> list[Service]:
    """The rows of the table that `profile` (`fleet` or `up`) starts, in the order they are started."""
    table = [router(plan, state, python), *nodes(plan, state, python), *load(plan, state, python)]
    return [service for service in table if profile in service.profiles]


def runtime_env(state: StateFolder) -> dict[str, str]:
    """Environment of every process that decides or computes."""
    return {**ONE_THREAD, **state.cache_env(), "HELM_STATE_DIR": str(state.root), "PYTHONUNBUFFERED": "1"}


def router(plan: Plan, state: StateFolder, python: str) -> Service:
    """The front door of the fleet."""
    return Service(
        name="router",
        command=(python, "-m", "agents.runtime.router_main", "--fleet", str(state.fleet_file)),
        env=runtime_env(state),
        health_url=f"http://{plan.dial_host}:{plan.router_port}/v2/health/ready",
        stop_order=1,
        ports=((plan.host, plan.router_port, "ROUTER_PORT"),),
    )


def nodes(plan: Plan, state: StateFolder, python: str) -> list[Service]:
    """The nodes; they listen on the loopback, for only the router and local tools speak to them."""
    return [
        Service(
            name=name,
            command=(python, "-m", "agents.runtime.node_main", "--fleet", str(state.fleet_file), "--name", name, *_journal(plan)),
            env=runtime_env(state),
            health_url=f"http://{LOOPBACK}:{port}/v2/health/ready",
            stop_order=2,
            ports=((LOOPBACK, port, "NODE_PORT"),),
        )
        for name, port in zip(plan.node_names, plan.node_ports, strict=True)
    ]


def load(plan: Plan, state: StateFolder, python: str) -> list[Service]:
    """The load generator, unless none is wanted."""
    if plan.workload == "none":
        return []
    source = ("--trace", str(plan.trace)) if plan.trace else ("--workload", plan.workload, "--seed", str(plan.seed))
    return [
        Service(
            name="load",
            command=(python, "-m", "agents.runtime.load_main", "--fleet", str(state.fleet_file), *source),
            env=runtime_env(state),
            needs=("router",),
            stop_order=0,
        )
    ]


def _journal(plan: Plan) -> tuple[str, ...]:
    return ("--journal", str(plan.journal.absolute())) if plan.journal else ()
