"""The same table of processes for containers: `python -m helmctl.supervisor.compose > docker-compose.yml`.

Commands, environments and health checks are those of `processes`; this file adds what only containers have:
images, volumes, published ports, PostgreSQL and Redis of their own. `${...}` is filled in by Compose from `.env`.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from helmctl.supervisor.bus import KEEPING, Bus
from helmctl.supervisor.plan import Hosts, Plan
from helmctl.supervisor.processes import COMPILED_ONCE, UP, Service, control_plane_env, preparation, services
from helmctl.supervisor.state import StateFolder

STATE = StateFolder(Path("/var/lib/helm"))
PYTHON = "python"
HEADER = """\
# Made by `python -m helmctl.supervisor.compose > docker-compose.yml`: edit the table it comes from instead.
# How to use it: deploy/README.md. Variables: deploy/env.example, copied to .env.
"""
HINT = ":?set it in .env, see deploy/env.example"
REDIS_PORT = 6379
REDIS_URL = f"redis://:${{REDIS_PASSWORD{HINT}}}@${{REDIS_HOST:-redis}}:${{REDIS_PORT:-{REDIS_PORT}}}/0"
DATABASE_URL = f"postgres://helm:${{POSTGRES_PASSWORD{HINT}}}@${{POSTGRES_HOST:-postgres}}:${{POSTGRES_PORT:-5432}}/helm"
PLAN = Plan(nodes=2, host="0.0.0.0", profile="${HELM_PROFILE:-cpu-demo}", workload="${WORKLOAD:-demo}")  # noqa: S104  a container's own
CONTROL = frozenset({"web", "beat", "migrate", "seed"})  # without torch
CACHES = frozenset((*STATE.cache_env(), *COMPILED_ONCE))  # the image has its own, beside the sources that they were compiled from
PUBLISHED = {"web": "WEB_PORT", "router": "ROUTER_PORT"}
STORES = ("postgres", "redis")
HEALTHY, ENDED = "service_healthy", "service_completed_successfully"
CHECK = {"interval": "5s", "timeout": "5s", "retries": 6, "start_period": "180s"}  # a first start on a small machine is slow

Block = dict[str, Any]


def table(plan: Plan) -> list[Service]:
    """Every row that runs HELM's own code, each found under its own name."""
    bus = Bus(url=REDIS_URL)
    hosts = Hosts(web="web", router="router", nodes={name: name for name in plan.node_names})
    env = {name: value for name, value in control_plane_env(plan, STATE, bus).items() if name not in CACHES}
    rows = services(plan, STATE, "up", bus, PYTHON, hosts)
    return [*preparation(plan.node_names, env, PYTHON), fleet_file(plan, hosts), *rows]


def fleet_file(plan: Plan, hosts: Hosts) -> Service:
    """Writes what the supervisor of one machine writes by itself."""
    nodes = zip(plan.node_names, plan.node_ports, strict=True)
    addresses = [word for name, port in nodes for word in ("--node", f"{name}={hosts.nodes[name]}:{port}")]
    router = ("--router", f"router={hosts.router}:{plan.router_port}")
    command = (PYTHON, "-m", "helmctl.supervisor.fleet_file", *router, *addresses, "--profile", plan.profile)
    return Service(name="fleet-file", command=command, env={"HELM_STATE_DIR": str(STATE.root)}, profiles=UP, once=True)


def document(plan: Plan = PLAN) -> Block:
    """The whole file."""
    return {
        "services": {"postgres": postgres(), "redis": redis(), **{row.name: block(row, plan) for row in table(plan)}},
        "volumes": {name: {} for name in ("state", *STORES)},
    }


def block(row: Service, plan: Plan) -> Block:
    """One row as Compose wants it."""
    image = target(row)
    made: Block = {
        "image": f"helm-{image}:${{HELM_VERSION:-latest}}",
        "build": {"context": ".", "dockerfile": "deploy/Dockerfile", "target": image},
        "command": list(row.command),
        "environment": environment(row, image),
        "volumes": [f"state:{STATE.root}"],
        "init": True,
        "restart": "no" if row.once else "unless-stopped",
        "stop_grace_period": f"{row.stop_seconds:.0f}s",
    }
    if row.health_url is not None:
        made["healthcheck"] = {"test": ["CMD", PYTHON, "-m", "helmctl.supervisor.health", row.health_url], **CHECK}
    if row.name in PUBLISHED:
        port = plan.web_port if row.name == "web" else plan.router_port
        made["ports"] = [f"${{HELM_BIND:-127.0.0.1}}:${{{PUBLISHED[row.name]}:-{port}}}:{port}"]
    if waits := waits_for(row, image):
        made["depends_on"] = waits
    if row.name == "load":
        made["profiles"] = ["load"]
    return made


def target(row: Service) -> str:
    """The stage of the image that holds what the row imports."""
    if row.name in CONTROL:
        return "web"
    return "worker" if row.name == "worker" else "agent"


def environment(row: Service, image: str) -> dict[str, str]:
    """The row's own, without the caches; who runs Django also gets addresses and secrets."""
    own = {name: value for name, value in row.env.items() if name not in CACHES}
    if image == "agent":
        return own
    return {
        **own,
        "DATABASE_URL": DATABASE_URL,
        "HELM_SECRET_KEY": f"${{HELM_SECRET_KEY{HINT}}}",
        "HELM_PUBLIC_URL": "${HELM_PUBLIC_URL:-http://localhost:8700}",
        "HELM_ALLOWED_HOSTS": "web",  # nodes dial it under this name
    }


def waits_for(row: Service, image: str) -> dict[str, Block]:
    """What must be healthy, or done, before the row starts."""
    healthy, done = set(row.needs), set()
    if image != "agent":
        healthy |= set(STORES)
        done |= {"migrate"} - {row.name}
    elif not row.once:
        done |= {"fleet-file", *({"seed"} if "--enrol-token-file" in row.command else ())}
    return {name: {"condition": ENDED if name in done else HEALTHY} for name in sorted(healthy | done)}


def postgres() -> Block:
    """The database; a store of yours takes its place with POSTGRES_HOST."""
    return {
        "image": "postgres:16-alpine",
        "environment": {"POSTGRES_USER": "helm", "POSTGRES_DB": "helm", "POSTGRES_PASSWORD": f"${{POSTGRES_PASSWORD{HINT}}}"},
        "volumes": ["postgres:/var/lib/postgresql/data"],
        "healthcheck": {"test": ["CMD-SHELL", "pg_isready -U helm -d helm"], **CHECK},
        "restart": "unless-stopped",
        "stop_grace_period": "30s",
    }


def redis() -> Block:
    """The queue and the fan-out, kept as `helmctl up` keeps them; the image's script starts it as a user without rights."""
    keeping = [word for name, value in KEEPING.items() for word in (f"--{name}", value.strip('"'))]
    server = ["redis-server", "--port", str(REDIS_PORT), "--dir", "/data", "--requirepass", f"${{REDIS_PASSWORD{HINT}}}"]
    return {
        "image": "redis:7-alpine",
        "command": [*server, *keeping],
        "environment": {"REDISCLI_AUTH": f"${{REDIS_PASSWORD{HINT}}}"},
        "volumes": ["redis:/data"],
        "healthcheck": {"test": ["CMD-SHELL", f"redis-cli -p {REDIS_PORT} ping | grep -q PONG"], **CHECK},
        "restart": "unless-stopped",
        "stop_grace_period": "10s",
    }


class _Plain(yaml.SafeDumper):
    """YAML without references between equal parts: a reader sees each service whole."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def text(made: Mapping[str, Any]) -> str:
    """The file's bytes."""
    body: str = yaml.dump(made, Dumper=_Plain, sort_keys=False, width=200, default_flow_style=False)
    return HEADER + "\n" + body


if __name__ == "__main__":
    sys.stdout.write(text(document()))
