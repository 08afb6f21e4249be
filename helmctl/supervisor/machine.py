"""What this machine gives us, and whether the ports are free. Read once, before anything is started."""

import os
import socket
from collections.abc import Iterable
from pathlib import Path

import psutil

from helmctl.supervisor.processes import Service
from helmctl.supervisor.refusal import Refusal

CGROUP_MEMORY = Path("/sys/fs/cgroup/memory.max")


def cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0))


def memory_bytes() -> int:
    """Bytes of memory: the machine's, or less in a container."""
    total = int(psutil.virtual_memory().total)
    text = CGROUP_MEMORY.read_text().strip() if CGROUP_MEMORY.exists() else "max"
    return min(total, int(text)) if text.isdigit() else total


def refuse_taken_ports(table: Iterable[Service]) -> None:
    """Raise `Refusal` for the first port that something else listens on, saying how to choose another."""
    for service in table:
        for host, port, variable in service.ports:
            problem = port_problem(host, port)
            if problem:
                raise Refusal(f"port {port} for {service.name} {problem}; choose another with {variable}=...")


def port_problem(host: str, port: int) -> str | None:
    """Why `host:port` cannot be listened on, or None."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is free to a server
        try:
            probe.bind((host, port))
            probe.listen(1)
        except PermissionError:
            return "may not be used by this user"
        except OSError as error:
            if error.errno == 98:
                return f"is taken{_owner(port)}"
            return f"cannot be opened on {host} ({error.strerror})"
    return None


def _owner(port: int) -> str:
    """` by pid 12 (name)` where the system tells us."""
    try:
        connections = psutil.net_connections(kind="tcp")
    except (psutil.AccessDenied, OSError):
        return ""
    for connection in connections:
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
            try:
                return f" by pid {connection.pid} ({psutil.Process(connection.pid).name()})"
            except psutil.NoSuchProcess:
                return ""
    return ""
