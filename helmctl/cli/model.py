"""`helmctl model`: bring a model of your own to the nodes of this machine, and choose between versions."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from helmctl.supervisor.refusal import Refusal
from helmctl.supervisor.state import StateFolder, find_state_folder

if TYPE_CHECKING:
    from agents.profiles import Profile
    from agents.wire.messages import FleetFile, NodeAddress

LOAD_SECONDS_MAX = 600.0  # a node reads the whole table into pinned memory before it flips: 100 GB at 0.2 GB/s

app = typer.Typer(no_args_is_help=True, help="Import model versions and choose which one the nodes of this machine serve.")

Version = Annotated[str, typer.Option("--version", help="Name of the new version; versions are never overwritten.")]
ProfileName = Annotated[str | None, typer.Option("--profile", help="Profile to check against. Default: that of the fleet here.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]


@app.command("import")
def import_model(
    version: Version,
    folder: Annotated[Path | None, typer.Argument(metavar="[DIR]", help="Holds weights.safetensors and the tables (*.npy).")] = None,
    weights: Annotated[Path | None, typer.Option(help="File of weights, in place of DIR's.")] = None,
    tables: Annotated[Path | None, typer.Option(help="Folder of tables, in place of DIR. Rows follow one another by file name.")] = None,
    profile: ProfileName = None,
    use: Annotated[bool, typer.Option("--use/--no-use", help="Let the nodes here serve it.")] = True,
    as_json: AsJson = False,
) -> None:
    """Check HSTU weights and tables, keep them as a version, and flip the running nodes to it without dropping a request."""
    from agents.runtime.versions import find_sources, import_version

    state = find_state_folder()
    fleet = _fleet(state)
    try:
        sources = find_sources(*_where(folder, weights, tables))
        rows = import_version(state.models, version, sources, _profile(fleet, profile), None if as_json else _show_progress)
    except (ValueError, OSError) as error:
        raise Refusal(str(error)) from error
    _tell(
        {"version": version, "rows": rows, "tables": [path.name for path in sources.tables]},
        _use(state, fleet, version) if use else None,
        as_json,
    )


@app.command("use")
def use_version(version: Annotated[str, typer.Argument(metavar="VERSION")], as_json: AsJson = False) -> None:
    """Let the nodes of this machine serve a version that is here, now and when they start again."""
    from agents.runtime.versions import versions

    state = find_state_folder()
    if version not in versions(state.models):
        raise Refusal(f"version {version!r} is not here, there are {', '.join(versions(state.models))}")
    _tell({"version": version}, _use(state, _fleet(state), version), as_json)


@app.command("features")
def use_feature_schema(schema: Annotated[str, typer.Argument(metavar="SCHEMA")], as_json: AsJson = False) -> None:
    """Say by which schema clients build histories from now on: kept prefixes of another one are never used again."""
    from agents.runtime.versions import set_current_feature_schema

    state = find_state_folder()
    fleet = _fleet(state)
    try:
        set_current_feature_schema(state.models, schema)
    except (ValueError, OSError) as error:
        raise Refusal(str(error)) from error
    nodes = [_flip(fleet, node, {"feature_schema": schema}) for node in fleet.nodes] if fleet else []
    if as_json:
        sys.stdout.write(json.dumps({"feature_schema": schema, "nodes": nodes}) + "\n")
        return
    lines = [f"feature schema {schema}", *(f"  {node['node']:<12}{node['outcome']}" for node in nodes)]
    sys.stdout.write("\n".join(lines) + "\n")


@app.command("list")
def list_versions(as_json: AsJson = False) -> None:
    """Versions on this machine; a star marks the one that a starting node serves."""
    from agents.runtime.versions import current_version, versions

    models = find_state_folder().models
    current, names = current_version(models), versions(models)
    if as_json:
        sys.stdout.write(json.dumps({"versions": names, "current": current}) + "\n")
        return
    sys.stdout.write("".join(f"{'*' if name == current else ' '} {name}\n" for name in names))


def _where(folder: Path | None, weights: Path | None, tables: Path | None) -> tuple[Path, Path]:
    from agents.runtime.versions import WEIGHTS_FILE

    if folder is None and (weights is None or tables is None):
        raise Refusal("name a folder, or --weights FILE and --tables DIR")
    base = folder or Path()
    return weights or base / WEIGHTS_FILE, tables or base


def _fleet(state: StateFolder) -> "FleetFile | None":
    from helmctl.supervisor.fleet_file import read_fleet_file

    return read_fleet_file(state.fleet_file)


def _profile(fleet: "FleetFile | None", named: str | None) -> "Profile":
    from agents.profiles import load_profile

    if named is None and fleet is None:
        raise Refusal("no fleet on this machine to take the profile from: name one with --profile")
    return load_profile(named or (fleet.profile if fleet else ""))


def _use(state: StateFolder, fleet: "FleetFile | None", version: str) -> list[dict[str, Any]]:
    """Flip every node that answers; those that do not serve it when they start. A refusal keeps the version from becoming current."""
    from agents.runtime.versions import set_current_version

    outcomes = [_flip(fleet, node, {"version": version}) for node in fleet.nodes] if fleet else []
    refused = [outcome for outcome in outcomes if outcome["outcome"] == "refused"]
    if refused:
        raise Refusal("; ".join(f"{outcome['node']} refused: {outcome['detail']}" for outcome in refused))
    set_current_version(state.models, version)
    return outcomes


def _flip(fleet: "FleetFile", node: "NodeAddress", choice: dict[str, str]) -> dict[str, Any]:
    import httpx

    url = f"http://{node.host}:{node.port}/v1/model"
    try:
        answer = httpx.put(url, json=choice, headers={"Authorization": f"Bearer {fleet.fleet_key}"}, timeout=LOAD_SECONDS_MAX)
        body = answer.json()
    except httpx.ConnectError:
        return {"node": node.name, "outcome": "not running"}
    except (httpx.HTTPError, ValueError) as error:
        return {"node": node.name, "outcome": "refused", "detail": str(error) or type(error).__name__}
    if answer.status_code != 200:
        return {"node": node.name, "outcome": "refused", "detail": body.get("error", f"status {answer.status_code}")}
    return {"node": node.name, "outcome": "serves it", "previous": body["previous"]}


def _tell(what: dict[str, Any], nodes: list[dict[str, Any]] | None, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps({**what, "nodes": nodes or []}) + "\n")
        return
    rows = f": {what['rows']:,} rows from {', '.join(what['tables'])}" if "rows" in what else ""
    lines = [f"version {what['version']}{rows}", *(f"  {node['node']:<12}{node['outcome']}" for node in nodes or [])]
    if nodes is None:
        lines.append(f"  not in use; take it up with: helmctl model use {what['version']}")
    sys.stdout.write("\n".join(lines) + "\n")


def _show_progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{done / total:4.0%} of {total:,} rows" + ("\n" if done == total else ""))
