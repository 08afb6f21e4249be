"""What the fleet's router says of itself and of its picks, asked when somebody looks: nothing of it is stored.

The router is found as its other clients find it, through the fleet file; its key never leaves this process.
"""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx
import msgspec
from django.conf import settings

from agents.wire import tickets
from agents.wire.messages import FleetFile
from apps.accounts.policies import require
from apps.audit.actions import Actor, record
from apps.lib.permissions import Permission
from apps.lib.problems import Missing, Problem

TIMEOUT_SECONDS = 2.0  # a router answers in a millisecond; one that does not is away


class Unreachable(Problem):
    """No router is known, or it does not answer."""

    status = 503


def overview() -> dict[str, Any]:
    """The router's figures, its nodes, and how its predictions turned out."""
    told: dict[str, Any] = _ask("/v1/fleet")
    return told


def recent_picks() -> list[dict[str, Any]]:
    """The newest picks that can be explained, newest first."""
    told: list[dict[str, Any]] = _ask("/debug/picks")
    return told


def explained_pick(request_id: str) -> dict[str, Any]:
    """One pick with every candidate's components; `Missing` when it is not kept."""
    told: dict[str, Any] = _ask(f"/debug/picks/{quote(request_id, safe='')}")
    return told


class IssuedTicket(NamedTuple):
    """What a ticket's owner gets, once."""

    ticket: str
    expires_at: datetime


def issue_ticket(actor: Actor, ttl_seconds: int, reason: str, now: datetime) -> IssuedTicket:
    """A ticket with which its owner may force requests to a node and read the router's pages; audited with its reason."""
    require(actor, Permission.ROUTE_FORCE)
    fleet = _fleet(Path(settings.FLEET_FILE))
    expires_at = (now + timedelta(seconds=ttl_seconds)).replace(microsecond=0)
    ticket = tickets.Ticket(who=actor.name, expires_unix_seconds=int(expires_at.timestamp()))
    record(actor, "route.ticket", "router", fleet.router.name, reason=reason, after={"expires_at": expires_at.isoformat()}, now=now)
    return IssuedTicket(tickets.issue(ticket, fleet.fleet_key), expires_at)


def _ask(path: str) -> Any:
    fleet = _fleet(Path(settings.FLEET_FILE))
    headers = {"Authorization": f"Bearer {fleet.fleet_key}"}
    try:
        answer = httpx.get(f"{_url(fleet)}{path}", headers=headers, timeout=TIMEOUT_SECONDS, trust_env=False)
        if answer.status_code == httpx.codes.NOT_FOUND:
            raise Missing("pick_not_kept", "The router keeps no sampled pick of this request.")
        answer.raise_for_status()
        return answer.json()
    except (httpx.HTTPError, ValueError) as error:
        raise Unreachable("router_unreachable", f"The router at {_url(fleet)} does not answer.") from error


def _fleet(path: Path) -> FleetFile:
    try:
        return msgspec.json.decode(path.read_bytes(), type=FleetFile)
    except (OSError, msgspec.MsgspecError) as error:
        raise Unreachable("router_unknown", "No router is known here: HELM_FLEET_FILE names no readable fleet file.") from error


def _url(fleet: FleetFile) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(fleet.router.host, fleet.router.host)  # noqa: S104 - dialled, not bound
    return f"http://{f'[{host}]' if ':' in host else host}:{fleet.router.port}"
