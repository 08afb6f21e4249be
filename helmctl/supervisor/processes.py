"""The table of HELM's processes: names, commands, environments, health checks, stop order. The only place that has them."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from agents.runtime.router.limits import Limits
from helmctl.supervisor.bus import Bus
from helmctl.supervisor.plan import Hosts, Plan
from helmctl.supervisor.state import StateFolder

FLEET = frozenset({"fleet", "up"})
UP = frozenset({"up"})
QUIET_WORKER = ("--without-gossip", "--without-mingle")  # there is one worker here: nobody to gossip with
THREAD_COUNTS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS", "NUMBA_NUM_THREADS")
ONE_THREAD = dict.fromkeys(THREAD_COUNTS, "1")  # a node with more would take its neighbours' cores and falsify their latencies
COMPILED_ONCE = {"PYTHONDONTWRITEBYTECODE": ""}  # whatever the shell says: a start takes twice as long where every import is compiled again


@dataclass(frozen=True, kw_only=True)
class Service:
    """One process. `env` is added to the starter's own environment."""

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    health_url: str | None = None  # answers when the process can do its work; None: being alive is enough
    needs: tuple[str, ...] = ()  # names of those that must be healthy, or done, before this one starts
    once: bool = False  # prepares something and ends
    standby: tuple[str, ...] = ()  # arguments of a second process that loads and waits, to take over when this one dies; none: none is kept
    stop_order: int = 0  # lower numbers stop first: who asks before who answers
    stop_seconds: float = 8.0  # from SIGTERM to SIGKILL
    profiles: frozenset[str] = FLEET
    ports: tuple[tuple[str, int, str], ...] = ()  # host, port, and the variable that moves it


def services(
    plan: Plan, state: StateFolder, profile: str, bus: Bus | None = None, python: str = sys.executable, hosts: Hosts | None = None
) -> list[Service]:
    """The rows of the table that `profile` (`fleet` or `up`) starts, in the order they are started; on this machine without `hosts`."""
    at = hosts or plan.hosts
    control = [] if bus is None else [*redis(bus), *control_plane(plan, state, bus, python, at)]
    table = [*control, router(plan, state, python, at), *nodes(plan, state, profile, python, at), *load(plan, state, python)]
    return [service for service in table if profile in service.profiles]


def runtime_env(state: StateFolder) -> dict[str, str]:
    """Environment of every process that decides or computes."""
    return {**ONE_THREAD, **COMPILED_ONCE, **state.cache_env(), "HELM_STATE_DIR": str(state.root), "PYTHONUNBUFFERED": "1"}


def router(plan: Plan, state: StateFolder, python: str, hosts: Hosts) -> Service:
    """The front door of the fleet."""
    return Service(
        name="router",
        command=(python, "-m", "agents.runtime.router_main", "--fleet", str(state.fleet_file)),
        env=runtime_env(state),
        health_url=f"http://{hosts.router}:{plan.router_port}/v2/health/ready",
        stop_order=1,
        stop_seconds=Limits().drain_seconds + 3.0,  # what it has let in is answered first
        standby=("--standby",),  # a start takes three seconds of imports, and without a router nothing is answered
        ports=((plan.host, plan.router_port, "ROUTER_PORT"),),
    )


def nodes(plan: Plan, state: StateFolder, profile: str, python: str, hosts: Hosts) -> list[Service]:
    """The nodes; on one machine they listen on the loopback, for only the router and local tools speak to them."""
    node_main = (python, "-m", "agents.runtime.node_main", "--fleet", str(state.fleet_file), "--name")
    link = f"ws://{hosts.web}:{plan.web_port}/agents/v1/link" if profile == "up" else None
    return [
        Service(
            name=name,
            command=(*node_main, name, *_journal(plan), *_link(link, name, state)),
            env=runtime_env(state),
            health_url=f"http://{hosts.nodes[name]}:{port}/v2/health/ready",
            stop_order=2,
            ports=((hosts.nodes[name], port, "NODE_PORT"),),
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
            needs=("router", *plan.node_names),  # a fleet half started would be measured, and fail, as if it were whole
            stop_order=0,
        )
    ]


def redis(bus: Bus) -> list[Service]:
    """Our own Redis, when it is ours to start."""
    if bus.server is None:
        return []
    return [
        Service(
            name="redis",
            command=(bus.server, str(bus.config_file)),
            health_url=bus.url,
            stop_order=5,
            profiles=UP,
        )
    ]


def control_plane_env(plan: Plan, state: StateFolder, bus: Bus) -> dict[str, str]:
    """Environment of everything that runs Django; what the person set (DATABASE_URL, HELM_PUBLIC_URL, ...) is inherited."""
    own = {"REDIS_URL": bus.url, "HELM_HOST": plan.host, "HELM_PORT": str(plan.web_port), "DJANGO_SETTINGS_MODULE": "helmctl.settings"}
    journals = {"HELM_JOURNAL_DIR": str(plan.journal.absolute())} if plan.journal else {}
    return {**runtime_env(state), **own, **journals}


def preparation(node_names: Sequence[str], env: Mapping[str, str], python: str = sys.executable) -> list[Service]:
    """What brings the database into shape, makes the first admin and the nodes' one-time tokens; safe to run at every start."""
    manage = (python, "manage.py")
    return [
        Service(name="migrate", command=(*manage, "migrate", "--noinput", "--verbosity", "0"), env=env, profiles=UP, once=True),
        Service(
            name="seed",
            command=(*manage, "seed_local", "--nodes", ",".join(node_names)),
            env=env,
            needs=("migrate",),
            profiles=UP,
            once=True,
        ),
    ]


def control_plane(plan: Plan, state: StateFolder, bus: Bus, python: str, hosts: Hosts) -> list[Service]:
    """Web, worker and beat."""
    env = control_plane_env(plan, state, bus)
    needs = () if bus.server is None else ("redis",)
    celery = (python, "-m", "celery", "-A", "helmctl.celery")
    uvicorn = (python, "-m", "uvicorn", "helmctl.asgi:application", "--host", plan.host, "--port", str(plan.web_port))
    return [
        Service(
            name="web",
            command=(*uvicorn, "--no-access-log", "--log-level", "warning", "--timeout-graceful-shutdown", "3"),
            env=env,
            health_url=f"http://{hosts.web}:{plan.web_port}/healthz",
            needs=needs,
            stop_order=4,
            profiles=UP,
            ports=((plan.host, plan.web_port, "WEB_PORT"),),
        ),
        Service(
            name="worker",  # four slots, so that roll-ups go on while two simulations and a training run; polite, so that none slows a node
            command=("nice", "-n", "10", *celery, "worker", "--concurrency", "4", "--loglevel", "WARNING", *QUIET_WORKER),
            env=env,
            health_url=f"{bus.url}#worker",
            needs=(*needs, "web"),
            stop_order=3,
            profiles=UP,
        ),
        Service(
            name="beat",
            command=(*celery, "beat", "--loglevel", "WARNING", "--pidfile="),  # one supervisor, one beat: a pid file could only go stale
            env=env,
            health_url=f"{bus.url}#beat",
            needs=(*needs, "web"),
            stop_order=3,
            profiles=UP,
        ),
    ]


def _link(url: str | None, name: str, state: StateFolder) -> tuple[str, ...]:
    """How a node finds the control plane; it serves and adapts without one."""
    if url is None:
        return ()
    return ("--control-url", url, "--credential-file", str(state.credential(name)), "--enrol-token-file", str(state.enrolment(name)))


def _journal(plan: Plan) -> tuple[str, ...]:
    return ("--journal", str(plan.journal.absolute())) if plan.journal else ()
