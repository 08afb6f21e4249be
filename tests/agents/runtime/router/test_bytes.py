"""Headers, request facts and frames as bytes; no sockets."""

import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.runtime.router import http
from agents.runtime.router.facts import UNKNOWN, RequestFacts, read_facts
from agents.runtime.router.residency import FrameReader, StreamError
from agents.wire.ids import user_key
from agents.wire.messages import NodeLoad, ResidencyDelta, ResidencySnapshot
from tests.agents.runtime.router.fakes import SALT, infer_body, load

TOKENS_MAX = 768


# --- headers --------------------------------------------------------------------------------


@given(st.binary(min_size=1, max_size=30), st.binary(max_size=60))
def test_no_header_can_become_two(name: bytes, value: bytes) -> None:
    written = http.header_lines([(name, value)])
    assert written.count(b"\n") <= 1
    assert written == b"" or written == name + b": " + value + b"\r\n"


@pytest.mark.parametrize("value", [b"a\r\nx: 1", b"a\nb", b"a\x00", b"a\x7f"])
def test_unsafe_values_are_left_out(value: bytes) -> None:
    assert http.header_lines([(b"x-a", value), (b"x-b", b"ok")]) == b"x-b: ok\r\n"


def test_what_a_node_says_about_its_own_connection_stays_there() -> None:
    headers = [
        (b"connection", b"close, X-Private"),
        (b"x-private", b"1"),
        (b"keep-alive", b"timeout=5"),
        (b"transfer-encoding", b"chunked"),
        (b"x-gateway-destination-endpoint-served", b"forged"),
        (b"server-timing", b"queue;dur=1"),
    ]
    assert http.returned_lines(headers) == b"server-timing: queue;dur=1\r\n"


def test_an_unknown_status_keeps_its_number() -> None:
    assert http.status_line(299) == b"HTTP/1.1 299 Status\r\n"
    assert http.status_line(404) == b"HTTP/1.1 404 Not Found\r\n"


@pytest.mark.parametrize(
    ("headers", "version", "problem"),
    [
        ([(b"host", b"x")], "1.1", None),
        ([], "1.0", None),
        ([], "1.1", "host"),
        ([(b"host", b"x"), (b"host", b"x")], "1.1", "host"),
        ([(b"host", b"x"), (b"content-length", b"1"), (b"content-length", b"1")], "1.1", "repeated"),
        ([(b"host", b"x"), (b"content-length", b"+1")], "1.1", "number"),
        ([(b"host", b"x"), (b"content-length", b"1"), (b"transfer-encoding", b"chunked")], "1.1", "combined"),
        ([(b"host", b"x"), (b"transfer-encoding", b"identity")], "1.1", "chunked"),
        ([(b"host", b"x"), (b"transfer-encoding", b"Chunked")], "1.1", None),
    ],
)
def test_doubts_about_framing_are_named(headers: http.Headers, version: str, problem: str | None) -> None:
    found = http.framing_problem(headers, version)
    assert found is None if problem is None else problem in (found or "")


# --- facts ----------------------------------------------------------------------------------


def test_user_history_and_candidates_are_read() -> None:
    assert read_facts(infer_body("u1", 300, 40), SALT, TOKENS_MAX) == RequestFacts(user_key("u1", SALT), 300, 40)


def test_an_integer_user_is_the_same_as_its_decimal_string() -> None:
    assert read_facts(infer_body(17), SALT, TOKENS_MAX) == read_facts(infer_body("17"), SALT, TOKENS_MAX)


def test_a_long_history_counts_as_what_the_model_sees_of_it() -> None:
    assert read_facts(infer_body("u", TOKENS_MAX), SALT, TOKENS_MAX).history_tokens == TOKENS_MAX
    assert read_facts(infer_body("u", TOKENS_MAX + 1), SALT, TOKENS_MAX).history_tokens == TOKENS_MAX + 1 - TOKENS_MAX // 4
    assert read_facts(infer_body("u", 100_000), SALT, TOKENS_MAX).history_tokens <= TOKENS_MAX


def test_a_request_without_a_user_keeps_its_sizes() -> None:
    assert read_facts(infer_body(None, 64, 5), SALT, TOKENS_MAX) == RequestFacts(0, 64, 5)


@given(st.binary(max_size=200))
def test_no_body_raises(body: bytes) -> None:
    facts = read_facts(body, SALT, TOKENS_MAX)
    assert facts.history_tokens >= 0


def test_unreadable_bodies_are_unknown() -> None:
    for body in (b"", b"{", b"[]", b"3", b'{"inputs": null}', b"\xff"):
        assert read_facts(body, SALT, TOKENS_MAX) == UNKNOWN


# --- frames ---------------------------------------------------------------------------------

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def framed(frame: object) -> bytes:
    body = msgspec.msgpack.encode(frame)
    return struct.pack(">I", len(body)) + body


@given(st.lists(st.integers(1, 40), min_size=1, max_size=30))
def test_frames_survive_any_cut_of_the_stream(cuts: list[int]) -> None:
    frames = [
        ResidencySnapshot(seq=3, user_keys=[2**64 - 1], cached_tokens=[64]),
        load(),
        ResidencyDelta(seq_first=4, seq=5, user_keys=[1], cached_tokens=[0]),
    ]
    whole = b"".join(framed(frame) for frame in frames)
    stream = HEAD + chunk(whole[:11]) + chunk(whole[11:150]) + chunk(whole[150:])
    reader, got, at, turn = FrameReader(10_000), [], 0, 0
    while at < len(stream):
        size = cuts[turn % len(cuts)]
        got += reader.feed(stream[at : at + size])
        at, turn = at + size, turn + 1
    assert got == frames


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n", "status 401"),
        (b"SSH-2.0-x\r\n", "not HTTP"),
        (HEAD + chunk(b"\xff\xff\xff\xff"), "a frame of 4294967295 bytes"),
        (HEAD + chunk(b"\x00\x00\x00\x01\xc1"), "does not decode"),
        (HEAD + b"0\r\n\r\n", "ended the stream"),
        (HEAD + chunk(framed(load(queue_depth=-1))), "queue_depth"),
        (HEAD + chunk(framed(load(ms_per_token=float("nan")))), "ms_per_token"),
        (HEAD + chunk(framed(ResidencyDelta(seq_first=9, seq=5, user_keys=[], cached_tokens=[]))), "sequence"),
    ],
)
def test_a_stream_that_cannot_be_used_says_why(data: bytes, reason: str) -> None:
    with pytest.raises(StreamError, match=reason):
        FrameReader(10_000).feed(data)


def test_a_report_is_a_report() -> None:
    frames = FrameReader(10_000).feed(HEAD + chunk(framed(load(queued_ms=12.5))))
    assert isinstance(frames[0], NodeLoad)
    assert frames[0].queued_ms == 12.5
