"""`helmctl policy list, show, import, export, use, rollback, tune, runs, cancel`: versions of the policy, through the REST API."""

import base64
import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from helmctl.cli.client import EXIT_BAD_INPUT, Client, CommandRefused, open_client, refusals_said
from helmctl.cli.status import AsJson

app = typer.Typer()
POLL_SECONDS = 1.0
FILE_BYTES_MAX = 2 << 20  # the server takes half of it
OPEN = {"queued", "running"}
OWN = "own"  # said instead of a version: the controller that a node was started with

Version = Annotated[str, typer.Argument(metavar="VERSION", help="A digest, its first six digits or more, or a name such as helm-v3.")]
Reason = Annotated[str, typer.Option("--reason", help="Why, for the audit log: 3 to 200 characters.")]
Nodes = Annotated[list[str] | None, typer.Option("--node", help="A node; may be given more than once.")]
AllNodes = Annotated[bool, typer.Option("--all", help="Every node.")]


@app.command("list")
@refusals_said
def list_versions(as_json: AsJson = False) -> None:
    """All versions, newest first, beside parent, B5 and B7."""
    with open_client() as client:
        rows = client.get_all("policies/")
    if as_json:
        sys.stdout.write(json.dumps(rows, indent=1) + "\n")
        return
    table = [("VERSION", "STATE", "DIGEST", "PARENT", "P99 TO PARENT", "TO B5", "TO B7", "NODES"), *map(_row, rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    sys.stdout.write(
        "".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n" for row in table)
    )


@app.command("show")
@refusals_said
def show(version: Version) -> None:
    """One version with its card, as JSON."""
    with open_client() as client:
        sys.stdout.write(json.dumps(client.get(f"policies/{_digest(client, version)}/"), indent=1) + "\n")


@app.command("import")
@refusals_said
def import_version(
    weights: Annotated[Path, typer.Argument(metavar="WEIGHTS", help="The .safetensors file.")],
    card: Annotated[Path | None, typer.Option(help="Its card; default: the file of the same name ending in .json.")] = None,
) -> None:
    """Bring a trained policy into the registry, as a candidate."""
    described = _read(card or weights.with_suffix(".json"))
    body = {"card": _text(described), "weights": base64.b64encode(_read(weights)).decode()}
    with open_client() as client:
        row = client.post("policies/", body)
    sys.stdout.write(f"{row['label']}  {row['digest']}\n")


@app.command("export")
@refusals_said
def export(version: Version, out: Annotated[Path, typer.Option(help="Folder for both files.")] = Path()) -> None:
    """Write a version's two files."""
    with open_client() as client:
        found = client.get(f"policies/{_digest(client, version)}/artefact/")
    stem = f"{json.loads(found['card'])['name']}-{found['digest'][:12]}".replace("/", "_")
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / f"{stem}.safetensors").write_bytes(base64.b64decode(found["weights"]))
        (out / f"{stem}.json").write_text(found["card"], "utf-8")
    except OSError as error:
        raise CommandRefused(f"--out: {error}", EXIT_BAD_INPUT) from error
    sys.stdout.write(f"{out / stem}.safetensors\n{out / stem}.json\n")


@app.command("use")
@refusals_said
def use(
    version: Version,
    reason: Reason,
    nodes: Nodes = None,
    all_nodes: AllNodes = False,
    active: Annotated[bool, typer.Option("--active/--advisory", help="Decide, or only say what it would do.")] = False,
) -> None:
    """Let nodes decide by a version; `own` instead of one means the controller they were started with."""
    body = {**_targets(nodes, all_nodes), "controller": "active" if active or version == OWN else "advisory", "reason": reason}
    with open_client() as client:
        path = "policies/own/" if version == OWN else f"policies/{_digest(client, version)}/use/"
        done = client.post(path, body)
    _tell([(row["node"], f"{row['digest'][:12] or 'own controller'}, {row['controller']}") for row in done])


@app.command("rollback")
@refusals_said
def roll_back(reason: Reason, nodes: Nodes = None, all_nodes: AllNodes = False) -> None:
    """Undo the newest `use` on each of these nodes."""
    with open_client() as client:
        done = client.post("policies/rollback/", {**_targets(nodes, all_nodes), "reason": reason})
    _tell([(row["node"], f"back to {row['before_digest'][:12] or 'own controller'}, {row['before_controller']}") for row in done])


@app.command("tune")
@refusals_said
def tune(
    version: Annotated[str, typer.Argument(metavar="[VERSION]", help="Default: the one that most nodes decide by.")] = "",
    steps: Annotated[int, typer.Option(min=0)] = 6_000,
    streams: Annotated[int, typer.Option(min=1)] = 8,
    journals: Annotated[int, typer.Option(min=0, help="Newest journals of nodes to learn from.")] = 4,
    seed: Annotated[int | None, typer.Option(min=0, help="Default: a fresh one for each run.")] = None,
    evaluation_seeds: Annotated[int, typer.Option(min=1)] = 2,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow it to its end.")] = True,
    as_json: AsJson = False,
) -> None:
    """Tune a version in the worker; the result is a new version, compared with its parent, B5 and B7."""
    with open_client() as client:
        asked = {"steps": steps, "streams": streams, "journals": journals, "seed": seed, "evaluation_seeds": evaluation_seeds}
        run = client.post("training/", {**asked, "parent": _digest(client, version) if version else ""})
        run = _follow(client, run) if wait else run
        result = client.get(f"policies/{run['result']['digest']}/") if run["result"] else None
    if as_json:
        sys.stdout.write(json.dumps({"run": run, "result": result}, indent=1) + "\n")
    elif result is None:
        sys.stdout.write(f"{run['id']}  {run['status']}\n")
    else:
        sys.stdout.write(f"{result['label']}  {result['digest'][:12]}  {result['state']}: {result['state_reason']}\n")
    if run["status"] in {"failed", "cancelled"}:
        raise CommandRefused(f"the run {run['status']}: {run['error'] or 'no version came of it'}")


@app.command("runs")
@refusals_said
def runs(as_json: AsJson = False) -> None:
    """Training runs, newest first."""
    with open_client() as client:
        rows = client.get_all("training/")
    if as_json:
        sys.stdout.write(json.dumps(rows, indent=1) + "\n")
        return
    for row in rows:
        result = row["result"]["label"] if row["result"] else row["error"]
        sys.stdout.write(
            f"{row['id']}  {row['status']:<10}{row['progress']:>5.0%}  from {row['parent']['label']:<12}{result}".rstrip() + "\n"
        )


@app.command("cancel")
@refusals_said
def cancel(run: Annotated[str, typer.Argument(metavar="[RUN]", help="Default: the one that is open.")] = "") -> None:
    """Cancel a training run; it stops within seconds and leaves no version."""
    with open_client() as client:
        chosen = run or next((row["id"] for row in client.get_all("training/") if row["status"] in OPEN), "")
        if not chosen:
            raise CommandRefused("no training run is open")
        row = client.delete(f"training/{chosen}/")
    sys.stdout.write(f"{row['id']}  {'stops at its next step' if row['status'] == 'running' else row['status']}\n")


def _follow(client: Client, run: dict[str, Any]) -> dict[str, Any]:
    while run["status"] in OPEN:
        left = "" if run["eta_seconds"] is None else f", {run['eta_seconds']:.0f} s left"
        reward = f", reward {run['curve'][-1]['reward_mean']:+.3f}" if run["curve"] else ""
        sys.stderr.write(f"\r\x1b[K{run['stage']}: {run['progress']:.0%}{left}{reward}")
        sys.stderr.flush()
        time.sleep(POLL_SECONDS)
        run = client.get(f"training/{run['id']}/")
    sys.stderr.write(f"\r\x1b[K{run['stage']}\n")
    return run


def _digest(client: Client, version: str) -> str:
    """What a person called a version, as a digest the server finds."""
    if version and not set(version) - set("0123456789abcdef"):
        return version
    name, separator, number = version.rpartition("-v")
    wanted = f"{name} v{number}" if separator else version
    for row in client.get_all("policies/"):
        if row["label"] == wanted:
            return str(row["digest"])
    raise CommandRefused(f"VERSION: there is no {version!r}; see helmctl policy list", EXIT_BAD_INPUT)


def _targets(nodes: list[str] | None, all_nodes: bool) -> dict[str, Any]:
    if bool(nodes) == all_nodes:
        raise CommandRefused("name nodes with --node, or say --all", EXIT_BAD_INPUT)
    return {"all_nodes": True} if all_nodes else {"nodes": nodes}


def _row(row: dict[str, Any]) -> tuple[str, ...]:
    against = (row["evaluation"] or {}).get("against", {})
    told = {use["node"]: use["controller"] for use in row["wanted_on"]}
    nodes = [f"{node} ({told.get(node, 'from its start')})" for node in sorted({*told, *row["in_force_on"]})]
    return (
        row["label"],
        row["state"],
        row["digest"][:12],
        row["parent"]["label"] if row["parent"] else "-",
        *(_change(against.get(name)) for name in ("parent", "b5", "b7")),
        ", ".join(nodes) or "-",
    )


def _change(found: dict[str, Any] | None) -> str:
    if found is None or found["mean"] is None:
        return "-"
    spread = f" [{found['low']:+.1%}, {found['high']:+.1%}]" if found["low"] is not None else ""
    return f"{found['mean']:+.1%}{spread}"


def _tell(lines: list[tuple[str, str]]) -> None:
    sys.stdout.write("".join(f"{node:<12}{text}\n" for node, text in lines))


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise CommandRefused(f"{path}: over {FILE_BYTES_MAX} bytes are no policy", EXIT_BAD_INPUT)
        return path.read_bytes()
    except OSError as error:
        raise CommandRefused(f"{path}: {error.strerror}", EXIT_BAD_INPUT) from error


def _text(card: bytes) -> str:
    try:
        return card.decode("utf-8")
    except UnicodeDecodeError:
        raise CommandRefused("the card is no UTF-8 text", EXIT_BAD_INPUT) from None
