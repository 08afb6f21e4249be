"""What a node is started with: the command line, the fleet file and one environment variable, read once."""

import argparse
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, get_args

import msgspec

from agents.caches.policy import ADMISSIONS
from agents.profiles import DeviceName, Profile, load_profile
from agents.wire.messages import FleetFile

SALT_BYTES_MAX = 64  # what the keyed hash takes
DRAIN_SECONDS_MAX = 5.0  # below the supervisor's patience before it kills


class SettingsError(Exception):
    """A node cannot be started like this; one sentence for the terminal, exit code 2."""


@dataclass(frozen=True, kw_only=True)
class NodeSettings:
    """Everything a node process is told."""

    name: str
    host: str
    port: int
    profile: Profile
    profile_reference: str | None = None  # name or path that a replay finds the profile by; its name if not given
    device: DeviceName = "cpu"
    fleet_key: str
    salt: bytes
    state_folder: Path
    controller: str = "helm"
    admission: str = "shipped"
    seed: int = 0
    emb_ratio_start: float | None = None
    journal_folder: Path | None = None
    control_url: str | None = None
    credential_file: Path | None = None
    enrol_token_file: Path | None = None
    drain_seconds_max: float = DRAIN_SECONDS_MAX

    @property
    def hold_file(self) -> Path:
        """Where the desired state survives a restart."""
        return self.state_folder / "nodes" / self.name / "spec.json"

    @property
    def adapter_file(self) -> Path:
        """Where what the residual adapter has learned survives a restart."""
        return self.state_folder / "nodes" / self.name / "adapter.json"

    @property
    def policy_file(self) -> Path:
        """Where the digest of the policy that the node was told to decide by survives a restart."""
        return self.state_folder / "nodes" / self.name / "policy"

    @property
    def policy_folder(self) -> Path:
        """Where fetched policies lie by digest, shared by the nodes of the machine."""
        return self.state_folder / "policies"

    @property
    def table_folder(self) -> Path:
        """Where the embedding table lies, shared by the nodes of the machine."""
        return self.state_folder / "tables"

    @property
    def model_folder(self) -> Path:
        """Where imported versions of the model lie, shared by the nodes of the machine."""
        return self.state_folder / "models"

    @property
    def infer_url(self) -> str:
        """Where clients and the router reach this node."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SettingsError(message)


def parse_node_settings(arguments: Sequence[str], environ: Mapping[str, str] | None = None) -> NodeSettings:
    """Settings from a command line; `SettingsError` says in one sentence what is wrong."""
    parser = _Parser(prog="agents.runtime.node_main", description="One HELM node.")
    parser.add_argument("--fleet", type=Path, required=True, help="path of fleet.json")
    parser.add_argument("--name", required=True, help="name of this node in it")
    parser.add_argument("--device", default=None, choices=get_args(DeviceName), help="default: what the profile says")
    parser.add_argument("--controller", default="helm", help="helm, paper, b5, b7, ... or static-RATIO")
    parser.add_argument("--admission", default="shipped", choices=ADMISSIONS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--emb-ratio-start", type=float, default=None)
    parser.add_argument("--journal", type=Path, default=None, help="folder to record this run in")
    parser.add_argument("--control-url", default=None, help="ws://HOST:PORT/agents/v1/link")
    parser.add_argument("--credential-file", type=Path, default=None)
    parser.add_argument("--enrol-token-file", type=Path, default=None)
    return _settings(parser.parse_args(arguments), os.environ if environ is None else environ)


def _settings(given: argparse.Namespace, environ: Mapping[str, str]) -> NodeSettings:
    fleet = read_fleet_file(given.fleet)
    address = next((node for node in fleet.nodes if node.name == given.name), None)
    if address is None:
        raise SettingsError(f"{given.fleet}: no node is called {given.name!r}, there are {', '.join(node.name for node in fleet.nodes)}")
    profile = fleet_profile(given.fleet, fleet)
    if given.control_url is not None:
        _check_link(given)
    if given.emb_ratio_start is not None and not 0.0 < given.emb_ratio_start < 1.0:
        raise SettingsError("--emb-ratio-start must lie between 0 and 1")
    return NodeSettings(
        name=given.name,
        host=address.host,
        port=address.port,
        profile=profile,
        profile_reference=fleet.profile,
        device=given.device or profile.device,
        fleet_key=fleet.fleet_key,
        salt=salt_of(fleet),
        state_folder=state_folder(given.fleet, environ),
        controller=given.controller,
        admission=given.admission,
        seed=given.seed,
        emb_ratio_start=given.emb_ratio_start,
        journal_folder=given.journal,
        control_url=given.control_url,
        credential_file=given.credential_file,
        enrol_token_file=given.enrol_token_file,
    )


def _check_link(given: argparse.Namespace) -> None:
    if not given.control_url.startswith(("ws://", "wss://")):
        raise SettingsError("--control-url must begin with ws:// or wss://")
    if given.credential_file is None:
        raise SettingsError("--control-url needs --credential-file")


def read_fleet_file(path: Path) -> FleetFile:
    """The fleet of this machine."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=FleetFile)
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise SettingsError(f"{path}: {error}") from error


def fleet_profile(path: Path, fleet: FleetFile) -> Profile:
    """The profile that the fleet file at `path` names, shipped or a file of its own."""
    try:
        return load_profile(fleet.profile)
    except ValueError as error:
        raise SettingsError(f"{path}: {error}") from error


def salt_of(fleet: FleetFile) -> bytes:
    """The cluster's salt for user keys."""
    try:
        salt = bytes.fromhex(fleet.cluster_salt_hex)
    except ValueError as error:
        raise SettingsError("fleet file: cluster_salt_hex is not hexadecimal") from error
    if not 0 < len(salt) <= SALT_BYTES_MAX:
        raise SettingsError(f"fleet file: cluster_salt_hex must hold 1 to {SALT_BYTES_MAX} bytes")
    return salt


def state_folder(fleet_file: Path, environ: Mapping[str, str]) -> Path:
    """Where HELM_STATE_DIR points, else the folder of the fleet file."""
    named = environ.get("HELM_STATE_DIR")
    return (Path(named).expanduser() if named else fleet_file.parent).absolute()


def bind(host: str, port: int) -> socket.socket:
    """Reserve an address before the costly part of a start; port 0 lets the system choose. `OSError` when taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a restart must not wait for old connections to time out
        bound.bind((host, port))
    except BaseException:
        bound.close()
        raise
    return bound
