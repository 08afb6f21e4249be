"""What was asked for: how many nodes, where they listen, what load they get. One frozen value, no defaults elsewhere."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from helmctl.supervisor.refusal import Refusal

LOOPBACK = "127.0.0.1"
NODES_MAX = 64  # ports 8790..8853; more on one machine measures the scheduler, not HELM
NODES_DEFAULT = 4
NODES_SMALL = 2
LOG_SUFFIXES = (".parquet", ".csv", ".npz")
GIB = 2**30
SMALL_MEMORY_BYTES = 4 * GIB  # below it four nodes of about 0.35 GB, router and load would swap
SMALL_CORES = 2  # fewer than this many


@dataclass(frozen=True, kw_only=True)
class Hosts:
    """Where processes reach each other: on one machine's loopback, or in a container each."""

    web: str
    router: str
    nodes: Mapping[str, str]  # by node name; a node listens on its host


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One machine's HELM. Ports are TCP; `host` is where people reach router and web, nodes stay on the loopback."""

    nodes: int = NODES_DEFAULT
    host: str = LOOPBACK
    web_port: int = 8700
    router_port: int = 8780
    node_port: int = 8790
    profile: str = "cpu-demo"
    workload: str = "demo"  # a shipped workload, a log to replay, or "none"
    seed: int = 1
    journal: Path | None = None
    restart: bool = True

    def __post_init__(self) -> None:
        """Refuse what cannot be started, naming the option."""
        if not 1 <= self.nodes <= NODES_MAX:
            raise Refusal(f"--nodes must be 1 to {NODES_MAX}, not {self.nodes}.")
        if not self.host or ":" in self.host:
            raise Refusal(f"--host must be an IPv4 address or a name, not {self.host!r}.")
        for name in ("web_port", "router_port", "node_port"):
            if not 1 <= getattr(self, name) <= 65535:
                raise Refusal(f"--{name.replace('_', '-')} must be 1 to 65535, not {getattr(self, name)}.")
        if self.node_port + self.nodes - 1 > 65535:
            raise Refusal(f"--node-port {self.node_port} leaves no room for {self.nodes} nodes below 65536.")
        if any(port in self.node_ports for port in (self.web_port, self.router_port)) or self.web_port == self.router_port:
            raise Refusal("--web-port, --router-port and the nodes' ports from --node-port must not meet.")

    @property
    def node_ports(self) -> range:
        """One port per node."""
        return range(self.node_port, self.node_port + self.nodes)

    @property
    def node_names(self) -> list[str]:
        """`node-0`, `node-1`, ..."""
        return [f"node-{index}" for index in range(self.nodes)]

    @property
    def dial_host(self) -> str:
        """Where this machine's own processes reach what listens on `host`."""
        return dial_host(self.host)

    @property
    def hosts(self) -> Hosts:
        """All on this machine."""
        return Hosts(web=self.dial_host, router=self.dial_host, nodes=dict.fromkeys(self.node_names, LOOPBACK))

    @property
    def trace(self) -> Path | None:
        """The log to replay, when `workload` names a file."""
        return Path(self.workload).absolute() if self.workload.endswith(LOG_SUFFIXES) else None


def dial_host(host: str) -> str:
    """A listener on every address is dialled on the loopback."""
    try:
        anywhere = ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return host
    return LOOPBACK if anywhere else host


def fit_to_machine(plan: Plan, *, cores: int, memory_bytes: int) -> tuple[Plan, str | None]:
    """The plan for this machine when nobody asked for a number of nodes, and what to say about it."""
    if cores >= SMALL_CORES and memory_bytes >= SMALL_MEMORY_BYTES:
        return plan, None
    machine = f"{cores} core{'s' if cores != 1 else ''}, {memory_bytes / GIB:.1f} GiB"
    return replace(plan, nodes=NODES_SMALL), f"Small machine ({machine}): starting {NODES_SMALL} nodes; NODES={NODES_DEFAULT} insists."
