"""The body of a local command: every refusal names its field."""

import json
from typing import Any

import pytest

from agents.runtime.control import decode_control
from agents.wire.errors import ErrorCode, WireError
from agents.wire.messages import ControlRequest, Mode


def refused_field(raw: bytes) -> str | None:
    with pytest.raises(WireError) as caught:
        decode_control(raw)
    assert caught.value.code is ErrorCode.INVALID_REQUEST
    return caught.value.field


def test_an_override_is_decoded() -> None:
    raw = b'{"mode": "override", "emb_ratio": 0.4, "ttl_ms": 60000, "reason": "game night"}'
    assert decode_control(raw) == ControlRequest(mode=Mode.OVERRIDE, emb_ratio=0.4, ttl_ms=60_000, reason="game night")


def test_a_release_needs_its_mode_only() -> None:
    assert decode_control(b'{"mode": "auto"}') == ControlRequest(mode=Mode.AUTO)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"emb_ratio": "0.4"}, "emb_ratio"),
        ({"emb_ratio": True}, "emb_ratio"),
        ({"emb_ratio": [0.4]}, "emb_ratio"),
        ({"ttl_ms": 1.5}, "ttl_ms"),
        ({"ttl_ms": "60000"}, "ttl_ms"),
        ({"reason": 5}, "reason"),
        ({"reason": None}, "reason"),
        ({"mode": "faster"}, "mode"),
        ({"mode": None}, "mode"),
        ({"ttl": "30m"}, "ttl"),
        ({"emb_ration": 0.4}, "emb_ration"),
    ],
)
def test_wrong_types_and_unknown_fields_are_refused_by_name(changes: dict[str, Any], field: str) -> None:
    good = {"mode": "override", "emb_ratio": 0.4, "ttl_ms": 60_000, "reason": "r"}
    assert refused_field(json.dumps({**good, **changes}).encode()) == field


def test_a_missing_mode_is_refused_by_name() -> None:
    assert refused_field(b"{}") == "mode"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_json_does_not_have_are_refused_by_name(value: float) -> None:
    good = {"mode": "override", "emb_ratio": value, "ttl_ms": 60_000, "reason": "r"}
    assert refused_field(json.dumps(good).encode()) == "emb_ratio"


def test_a_number_too_large_to_be_finite_is_refused_by_name() -> None:
    assert refused_field(b'{"mode": "pin", "emb_ratio": 1e999, "reason": "r"}') == "emb_ratio"


@pytest.mark.parametrize("raw", [b"", b"{", b"NaN", b"nope", b"\xff", b"[1", b"[" * 100_000])
def test_what_is_not_json_is_refused(raw: bytes) -> None:
    assert refused_field(raw) is None


@pytest.mark.parametrize("raw", [b"[]", b"5", b"null", b'"override"'])
def test_what_is_no_object_is_refused(raw: bytes) -> None:
    refused_field(raw)


@pytest.mark.parametrize(("member", "value"), [("emb_ratio", 0.5), ("ttl_ms", 1_000)])
def test_automatic_takes_neither_ratio_nor_ttl(member: str, value: float) -> None:
    assert refused_field(json.dumps({"mode": "auto", member: value}).encode()) == member
