"""What `helmctl top` shows: every node's own report and the router's, as plain JSON values. A node that does not answer is offline."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx

from agents.wire.messages import FleetFile, NodeAddress, NodeTelemetry, Phase
from helmctl.supervisor.plan import dial_host

TIMEOUT_SECONDS = 2.0
LOAD_FRESH_NS = 5_000_000_000  # it writes once a second
LEFT_OUT = frozenset({"sketch", "landscape"})  # bulk that a terminal or a script has no use for
NODE_FIELDS = tuple(name for name in NodeTelemetry.__struct_fields__ if name not in LEFT_OUT)

Row = dict[str, Any]


async def look(fleet: FleetFile) -> dict[str, Any]:
    """`{"nodes": [...], "router": {...}}`; nodes in the fleet file's order."""
    headers = {"Authorization": f"Bearer {fleet.fleet_key}"}
    async with httpx.AsyncClient(headers=headers, timeout=TIMEOUT_SECONDS, trust_env=False) as client:
        answers = await asyncio.gather(
            _get(client, fleet.router, "/v1/fleet"), *(_get(client, address, "/v1/status") for address in fleet.nodes)
        )
    return {
        "nodes": [node_row(address.name, answer) for address, answer in zip(fleet.nodes, answers[1:], strict=True)],
        "router": router_row(answers[0]),
    }


def node_row(name: str, answer: Row | None) -> Row:
    """One node with every field, null where nothing is known."""
    known = answer or {}
    row = {field: known.get(field) for field in NODE_FIELDS}
    return {**row, "name": name, "phase": known.get("phase", Phase.OFFLINE.value)}


def router_row(answer: Row | None) -> Row:
    """The router's own figures."""
    if answer is None:
        return {"phase": Phase.OFFLINE.value}
    figures = answer.get("router", {})
    return {"phase": Phase.READY.value, **(figures if isinstance(figures, dict) else {})}


def read_load(path: Path, now_unix_ns: int) -> Row | None:
    """What the load generator says of itself; None when it stopped saying anything."""
    try:
        status = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    fresh = isinstance(status, dict) and now_unix_ns - int(status.get("at_unix_ns", 0)) <= LOAD_FRESH_NS
    return status if fresh else None


def url_of(address: NodeAddress, path: str) -> str:
    """Where this machine finds a page of a router or node."""
    host = dial_host(address.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{address.port}{path}"


async def _get(client: httpx.AsyncClient, address: NodeAddress, path: str) -> Row | None:
    """The JSON object at `path`, or None when there is no sound answer."""
    try:
        answer = await client.get(url_of(address, path))
        body = answer.json() if answer.status_code == httpx.codes.OK else None
    except (httpx.HTTPError, ValueError):
        return None
    return body if isinstance(body, dict) else None
