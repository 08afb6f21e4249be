"""`helmctl route`: how the router of this machine chose nodes, and how its predictions turned out."""

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import httpx
import typer

from helmctl.supervisor.refusal import Refusal
from helmctl.supervisor.state import find_state_folder

if TYPE_CHECKING:
    from agents.wire.messages import FleetFile

app = typer.Typer(no_args_is_help=True)
AsJson = Annotated[bool, typer.Option("--json", help="The router's own answer, for scripts.")]

Row = dict[str, Any]
COMPONENTS = ("queue", "fixed", "kv", "emb", "candidates", "refill", "rent", "delay", "score")
CELL = 10


@app.command()
def explain(
    request_id: Annotated[str, typer.Argument(help="x-request-id of an answer; the router keeps the newest sampled picks.")],
    as_json: AsJson = False,
) -> None:
    """Each candidate's components in milliseconds, and why others were left out."""
    told = _ask(f"/debug/picks/{quote(request_id, safe='')}")
    _print(json.dumps(told, indent=1) if as_json else "\n".join(explained(told)))


@app.command()
def recent(as_json: AsJson = False) -> None:
    """The newest picks that can be explained, newest first."""
    told = _ask("/debug/picks")
    _print(json.dumps(told, indent=1) if as_json else "\n".join(listed(told)))


def explained(told: Row) -> list[str]:
    """One pick as lines of a terminal."""
    lines = [
        f"request {told['request_id']}  {told['history_tokens']} tokens of history, {told['cached_tokens']} of them resident,"
        f" {told['candidates']} candidates",
        f"picked {told['picked'] or 'nobody'}, predicted {told['predicted_ms']:.2f} ms",
        "",
        "".join([f"{'node':16}", *(f"{name:>{CELL}}" for name in COMPONENTS), "  left out"]),
    ]
    lines += [_candidate(node, node["name"] == told["picked"]) for node in told["nodes"]]
    if told["observed"] is not None:
        lines += ["", f"{'ms':16}{'predicted':>{CELL}}{'observed':>{CELL}}"]
        lines += [f"{name:16}{told['predicted'][name]:>{CELL}.2f}{value:>{CELL}.2f}" for name, value in told["observed"].items()]
    return lines


def _candidate(node: Row, is_picked: bool) -> str:
    cells = "".join(f"{node['components'][name]:>{CELL}.2f}" for name in COMPONENTS)
    return f"{('> ' if is_picked else '  ') + node['name']:16}{cells}  {node['filtered'].replace('_', ' ')}".rstrip()


def listed(told: list[Row]) -> list[str]:
    """Recent picks, one a line."""
    lines = [f"{'request':36} {'node':16}{'predicted':>{CELL}}{'observed':>{CELL}}"]
    for entry in told:
        observed = "-" if entry["observed"] is None else f"{entry['observed']['total']:.2f}"
        lines.append(f"{entry['request_id']:36} {entry['picked'] or '-':16}{entry['predicted_ms']:>{CELL}.2f}{observed:>{CELL}}")
    return lines


def _ask(path: str) -> Any:
    from helmctl.supervisor.fleet_file import read_fleet_file

    fleet = read_fleet_file(find_state_folder().fleet_file)
    if fleet is None:
        raise Refusal("no fleet on this machine; start one with: make fleet")
    return asyncio.run(_answer(fleet, path))


async def _answer(fleet: "FleetFile", path: str) -> Any:
    from helmctl.supervisor.view import TIMEOUT_SECONDS, url_of

    headers = {"Authorization": f"Bearer {fleet.fleet_key}"}
    try:
        async with httpx.AsyncClient(headers=headers, timeout=TIMEOUT_SECONDS, trust_env=False) as client:
            answer = await client.get(url_of(fleet.router, path))
        content = answer.json()
    except (httpx.HTTPError, ValueError):
        raise Refusal(f"the router at {fleet.router.host}:{fleet.router.port} does not answer") from None
    if answer.status_code != httpx.codes.OK:
        raise Refusal(str(content.get("error", f"the router answered {answer.status_code}")))
    return content


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
