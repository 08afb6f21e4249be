"""Tickets that let an operator steer the router: whole, in time, and of this fleet."""

import base64
import hashlib
import hmac

import pytest

from agents.wire.tickets import PREFIX, TICKET_BYTES_MAX, Ticket, issue, read

KEY = "the fleet's"
TICKET = Ticket(who="olga", expires_unix_seconds=1_000)


def signed(body: bytes) -> str:
    """Any body with this fleet's signature."""
    text = base64.urlsafe_b64encode(body).decode()
    return f"{PREFIX}{text}.{hmac.new(KEY.encode(), b'router ticket:' + text.encode(), hashlib.sha256).hexdigest()}"


def test_a_ticket_is_read_back_until_its_time_is_over() -> None:
    text = issue(TICKET, KEY)
    assert read(text, KEY, 999.9) == TICKET
    assert read(text, KEY, 1_000.0) is None


def test_another_fleets_key_makes_another_fleets_ticket() -> None:
    assert read(issue(TICKET, "another"), KEY, 0.0) is None


@pytest.mark.parametrize("place", [0, len(PREFIX), len(PREFIX) + 5, -1])
def test_one_changed_character_is_one_too_many(place: int) -> None:
    whole = list(issue(TICKET, KEY))
    whole[place] = "A" if whole[place] != "A" else "B"
    assert read("".join(whole), KEY, 0.0) is None


@pytest.mark.parametrize("text", ["", PREFIX, f"{PREFIX}e30.", "Bearer", f"{PREFIX}é.é", PREFIX + "x" * TICKET_BYTES_MAX])
def test_what_is_no_ticket_is_none(text: str) -> None:
    assert read(text, KEY, 0.0) is None


@pytest.mark.parametrize("body", [b"{}", b"[]", b"\xff", b'{"who":"olga","expires_unix_seconds":1000,"role":"admin"}'])
def test_a_signed_text_that_says_something_else_is_none(body: bytes) -> None:
    assert read(signed(body), KEY, 0.0) is None


def test_the_signature_is_the_documented_one() -> None:
    assert read(signed(b'{"who":"olga","expires_unix_seconds":1000}'), KEY, 0.0) == TICKET
