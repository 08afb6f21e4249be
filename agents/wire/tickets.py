"""Tickets: what lets a person steer the router for a while without knowing the fleet's key.

The control plane issues one to an operator and writes down why; the router checks it with the key that it
shares with the control plane, and asks nobody. A ticket is the base64url of its JSON and, after a dot, the
hex HMAC-SHA256 of that under the fleet's key. A new fleet key ends all tickets.
"""

import base64
import binascii
import hashlib
import hmac

import msgspec

PREFIX = "helm_ticket_"
TICKET_BYTES_MAX = 512
_PURPOSE = b"router ticket:"  # the fleet's key signs nothing else that could be mistaken for a ticket


class Ticket(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who may steer, and until when."""

    who: str
    expires_unix_seconds: int


_DECODER = msgspec.json.Decoder(Ticket)


def issue(ticket: Ticket, fleet_key: str) -> str:
    """The ticket as text for an `Authorization: Bearer` header."""
    body = base64.urlsafe_b64encode(msgspec.json.encode(ticket)).decode()
    return f"{PREFIX}{body}.{_signature(body, fleet_key)}"


def read(text: str, fleet_key: str, now_unix_seconds: float) -> Ticket | None:
    """The ticket, or `None` when it is not one of this fleet's or its time is over."""
    if len(text) > TICKET_BYTES_MAX or not text.startswith(PREFIX) or not text.isascii():
        return None
    body, _, signature = text.removeprefix(PREFIX).partition(".")
    if not hmac.compare_digest(signature, _signature(body, fleet_key)):
        return None
    try:
        ticket = _DECODER.decode(base64.b64decode(body, altchars=b"-_", validate=True))
    except (binascii.Error, msgspec.MsgspecError):
        return None
    return ticket if now_unix_seconds < ticket.expires_unix_seconds else None


def _signature(body: str, fleet_key: str) -> str:
    return hmac.new(fleet_key.encode(), _PURPOSE + body.encode(), hashlib.sha256).hexdigest()
