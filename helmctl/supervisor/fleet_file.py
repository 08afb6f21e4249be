"""`fleet.json`: who the fleet is on this machine. Written here, read by every daemon and local tool.

Where no supervisor writes it: `python -m helmctl.supervisor.fleet_file --router router=HOST:PORT --node NAME=HOST:PORT ...`.
"""

import argparse
import os
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from agents.profiles import load_profile, profile_reference
from agents.wire.messages import FleetFile, NodeAddress
from helmctl.supervisor.plan import LOOPBACK, Plan
from helmctl.supervisor.state import OWNER_ONLY, find_state_folder

SALT_BYTES = 32
KEY_BYTES = 32


def read_fleet_file(path: Path) -> FleetFile | None:
    """The fleet as last started; None when there is none, or when its file is damaged."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=FleetFile)
    except (FileNotFoundError, msgspec.DecodeError, ValueError):
        return None


def write_fleet_file(path: Path, plan: Plan) -> FleetFile:
    """Write the plan's addresses."""
    nodes = [NodeAddress(name=name, host=LOOPBACK, port=port) for name, port in zip(plan.node_names, plan.node_ports, strict=True)]
    return write_fleet(path, NodeAddress(name="router", host=plan.host, port=plan.router_port), nodes, plan.profile)


def write_fleet(path: Path, router: NodeAddress, nodes: list[NodeAddress], profile: str) -> FleetFile:
    """Write a fleet. Salt and key outlive a restart: captures stay comparable, nodes stay known."""
    known = read_fleet_file(path)
    fleet = FleetFile(
        cluster_salt_hex=known.cluster_salt_hex if known else secrets.token_hex(SALT_BYTES),
        fleet_key=known.fleet_key if known else secrets.token_urlsafe(KEY_BYTES),
        router=router,
        nodes=nodes,
        profile=profile_reference(profile),
    )
    fresh = path.with_suffix(".new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(fleet)))
    fresh.replace(path)
    return fleet


def address(text: str) -> NodeAddress:
    """`NAME=HOST:PORT`; ValueError for anything else."""
    name, _, where = text.partition("=")
    host, _, port = where.rpartition(":")
    if not name or not host or not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise ValueError(f"expected NAME=HOST:PORT, got {text!r}")
    return NodeAddress(name=name, host=host.strip("[]"), port=int(port))


def known_profile(name_or_path: str) -> str:
    """A profile that can be read, as its name or path; ArgumentTypeError for anything else."""
    try:
        load_profile(name_or_path)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return name_or_path


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the fleet file of machines that have no common supervisor."""
    parser = argparse.ArgumentParser(prog="helmctl.supervisor.fleet_file", description="Write fleet.json into the state folder.")
    parser.add_argument("--router", type=address, required=True, metavar="router=HOST:PORT")
    parser.add_argument("--node", type=address, required=True, action="append", metavar="NAME=HOST:PORT", help="once per node")
    parser.add_argument("--profile", type=known_profile, default="cpu-demo", help="name of a shipped profile or path of a file")
    given = parser.parse_args(arguments)
    state = find_state_folder()
    state.root.mkdir(mode=OWNER_ONLY, parents=True, exist_ok=True)
    write_fleet(state.fleet_file, given.router, given.node, given.profile)
    return 0


if __name__ == "__main__":
    sys.exit(main())
