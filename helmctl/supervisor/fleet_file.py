"""`fleet.json`: who the fleet is on this machine. Written here, read by every daemon and local tool."""

import os
import secrets
from pathlib import Path

import msgspec

from agents.wire.messages import FleetFile, NodeAddress
from helmctl.supervisor.plan import LOOPBACK, Plan

SALT_BYTES = 32
KEY_BYTES = 32


def read_fleet_file(path: Path) -> FleetFile | None:
    """The fleet as last started; None when there is none, or when its file is damaged."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=FleetFile)
    except (FileNotFoundError, msgspec.DecodeError, ValueError):
        return None


def write_fleet_file(path: Path, plan: Plan) -> FleetFile:
    """Write the plan's addresses. Salt and key outlive a restart: captures stay comparable, nodes stay known."""
    known = read_fleet_file(path)
    fleet = FleetFile(
        cluster_salt_hex=known.cluster_salt_hex if known else secrets.token_hex(SALT_BYTES),
        fleet_key=known.fleet_key if known else secrets.token_urlsafe(KEY_BYTES),
        router=NodeAddress(name="router", host=plan.host, port=plan.router_port),
        nodes=[NodeAddress(name=name, host=LOOPBACK, port=port) for name, port in zip(plan.node_names, plan.node_ports, strict=True)],
        profile=plan.profile,
    )
    fresh = path.with_suffix(".new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(fleet)))
    fresh.replace(path)
    return fleet
