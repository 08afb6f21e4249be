"""`helmctl node`: look at nodes and take them by hand, through the REST API."""

import json
import sys
from typing import Annotated, Any

import typer

from agents.controller.explain import explain
from apps.lib.sizes import bytes_text
from helmctl.cli.client import (
    Client,
    CommandRefused,
    open_client,
    parse_duration_seconds,
    parse_ratio,
    parse_size_bytes,
    refusals_said,
)
from helmctl.cli.figures import number
from helmctl.cli.status import AsJson, row, show_nodes, status

app = typer.Typer(no_args_is_help=True, help="List, show and explain nodes, take them by hand, and size their pools.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="The node.")]
Reason = Annotated[str, typer.Option("--reason", help="Why, for the audit log: 3 to 200 characters.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the price and change nothing.")]


@app.command("list")
@refusals_said
def list_nodes(as_json: AsJson = False) -> None:
    """All nodes."""
    with open_client() as client:
        documents = client.get_all("nodes/")
    if as_json:
        _print_json(documents)
        return
    show_nodes([row(document) for document in documents])


@app.command("show")
@refusals_said
def show(name: Name, as_json: AsJson = False) -> None:
    """One node: what it should do and what it does."""
    with open_client() as client:
        document, _ = client.node(name)
    if as_json:
        _print_json(document)
        return
    _show(document)


@app.command("override")
@refusals_said
def override(
    name: Name,
    ratio: Annotated[str, typer.Argument(metavar="RATIO", help="Share of the pool for embedding rows, such as 0.6.")],
    ttl: Annotated[str, typer.Option("--ttl", help="How long: 90s, 30m, 2h. The node goes back by itself.")],
    reason: Reason,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Fix a node's ratio for a while."""
    body = {"emb_ratio": parse_ratio(ratio), "ttl_seconds": parse_duration_seconds(ttl), "reason": reason}
    _take(name, "override", body, dry_run, as_json)


@app.command("pin")
@refusals_said
def pin(
    name: Name,
    reason: Reason,
    ratio: Annotated[str | None, typer.Argument(metavar="[RATIO]", help="Default: the present one.")] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Fix a node's ratio until it is released."""
    body: dict[str, Any] = {"reason": reason} if ratio is None else {"emb_ratio": parse_ratio(ratio), "reason": reason}
    _take(name, "pin", body, dry_run, as_json)


@app.command("release")
@refusals_said
def release(name: Name, reason: Reason, as_json: AsJson = False) -> None:
    """Give a node back to its controller."""
    _take(name, "release", {"reason": reason}, False, as_json)


@app.command("pool")
@refusals_said
def pool(
    name: Name,
    size: Annotated[str, typer.Argument(metavar="SIZE|default", help="512MiB, 40GiB or bytes; default: all that the profile has.")],
    reason: Reason,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Give a node's pool another size while it serves."""
    _take(name, "resize", {"pool_bytes": parse_size_bytes(size), "reason": reason}, dry_run, as_json)


@app.command("explain")
@refusals_said
def explain_decision(name: Name, as_json: AsJson = False) -> None:
    """Why the node's ratio is what it is: its last decision in words."""
    with open_client() as client:
        decisions = client.decisions(name, count=1)
    if not decisions:
        raise CommandRefused(f"{name} has sent no decision yet")
    if as_json:
        _print_json(decisions[0])
        return
    sys.stdout.write("\n".join([*explain(decisions[0]), f"  at        {decisions[0]['at']}"]) + "\n")


def _take(name: str, verb: str, body: dict[str, Any], dry_run: bool, as_json: bool) -> None:
    with open_client() as client:
        answer = _post(client, name, verb, body, dry_run)
    if as_json:
        _print_json(answer)
    elif dry_run:
        _show_price(answer)
    else:
        _show(answer)


def _post(client: Client, name: str, verb: str, body: dict[str, Any], dry_run: bool) -> Any:
    """Write on the version that was just read: whoever changed the node in between is not overruled unseen."""
    _, etag = client.node(name)
    return client.post(f"nodes/{name}/{verb}/", body, if_match=etag, dry_run=dry_run)


def _show(document: dict[str, Any]) -> None:
    metadata, spec, state = document["metadata"], document["spec"], document["status"]
    lines = [
        f"{metadata['name']}  {state['phase']}  generation {metadata['generation']} (observed {state['observed_generation']})",
        f"  spec    {spec['mode']}" + _wish(spec),
        f"  status  {state['mode'] or '-'}  EMB {number(state['emb_ratio'], 3)}  target {number(state['target_emb_ratio'], 3)}",
        f"  pool    {_pool(spec, state['telemetry'])}",
    ]
    lines += [f"  {item['type']}: {item['status']} ({item['reason']}) {item['message']}" for item in state["conditions"]]
    sys.stdout.write("\n".join(lines) + "\n")


def _wish(spec: dict[str, Any]) -> str:
    if spec["emb_ratio"] is None:
        return ""
    left = "" if spec["ttl_remaining_seconds"] is None else f" for {spec['ttl_remaining_seconds']:.0f} s"
    return f" at {spec['emb_ratio']:.3f}{left}, by {spec['actor']}: {spec['reason']}"


def _pool(spec: dict[str, Any], telemetry: dict[str, Any] | None) -> str:
    """Size asked for, and the three sums over both caches that differ while pages move."""
    asked = "default" if spec["pool_bytes"] is None else bytes_text(spec["pool_bytes"])
    if telemetry is None:
        return asked
    sums = {name: telemetry["emb"][f"{name}_bytes"] + telemetry["kv"][f"{name}_bytes"] for name in ("requested", "granted", "used")}
    return f"{asked}: " + ", ".join(f"{bytes_text(amount)} {name}" for name, amount in sums.items())


def _show_price(price: dict[str, Any]) -> None:
    before, after, change = price["before"], price["after"], price["change"]
    facts = [
        f"EMB {before['emb_ratio']:.3f} -> {after['emb_ratio']:.3f}: {change['emb_rows']:+d} rows",
        f"{change['kv_users']:+d} users",
        f"{change['refill_gib']:.3f} GiB to refill",
    ]
    if before["pool_bytes"] != after["pool_bytes"]:
        facts.insert(0, f"pool {bytes_text(before['pool_bytes'])} -> {bytes_text(after['pool_bytes'])}")
    if change["move_seconds"] is not None:
        facts.append(f"{change['move_seconds']:.0f} s to move")
    sys.stdout.write(", ".join(facts) + "\n")


def _print_json(document: Any) -> None:
    sys.stdout.write(json.dumps(document, indent=1) + "\n")


__all__ = ["app", "status"]
