"""HTTP/1.1 as bytes: which headers travel, and how heads are written. No sockets."""

import re
from collections.abc import Iterable
from http import HTTPStatus

import msgspec

from agents.wire.errors import WireError

Headers = list[tuple[bytes, bytes]]

_SCHEME_AND_AUTHORITY = re.compile(rb"https?://[^/?#]*", re.IGNORECASE)
REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_NAME_BYTES = b"!#$%&'*+.^_`|~-" + b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_VALUE_BYTES = bytes(byte for byte in range(256) if byte == 0x09 or (byte >= 0x20 and byte != 0x7F))

# The node's protocol uses these and no others. An allow-list, because what a router adds (user's reuse
# gap, residency) must not be forgeable by a client, and credentials are not the node's business.
FORWARDED = frozenset(
    {
        b"content-type",
        b"content-encoding",
        b"accept",
        b"accept-encoding",
        b"traceparent",
        b"tracestate",
        b"inference-header-content-length",
    }
)
# Hop-by-hop, or written anew by the router for its own connection.
NOT_RETURNED = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"content-length",
        b"date",
        b"x-request-id",
        b"x-gateway-destination-endpoint",
        b"x-gateway-destination-endpoint-served",
        b"x-helm-reason",
    }
)

STATUS_LINES = {int(status): f"HTTP/1.1 {int(status)} {status.phrase}\r\n".encode() for status in HTTPStatus}


def status_line(status: int) -> bytes:
    """First line of an answer; an unknown status keeps its number."""
    return STATUS_LINES.get(status) or f"HTTP/1.1 {status} Status\r\n".encode()


def is_safe(name: bytes, value: bytes) -> bool:
    """Whether a parsed header can be written again without becoming another one."""
    return not (value.translate(None, _VALUE_BYTES) or name.translate(None, _NAME_BYTES) or name == b"")


def header_lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Headers as they go over the wire; unsafe ones are left out."""
    lines: list[bytes] = []
    for name, value in headers:
        if is_safe(name, value):
            lines += (name, b": ", value, b"\r\n")
    return b"".join(lines)


def forwarded_lines(headers: Headers) -> bytes:
    """Of a client's headers those that a node is to see."""
    return header_lines([header for header in headers if header[0] in FORWARDED])


def returned_lines(headers: Headers) -> bytes:
    """Of a node's headers those that the client is to see; what `Connection` names stays behind as well."""
    returned, named = [], b""
    for header in headers:
        if header[0] not in NOT_RETURNED:
            returned.append(header)
        elif header[0] == b"connection":
            named += b"," + header[1]
    if named:
        private = {part.strip().lower() for part in named.split(b",")}
        returned = [header for header in returned if header[0] not in private]
    return header_lines(returned)


def connection_line(version: str, keep_alive: bool) -> bytes:
    """What must be said about the connection; HTTP/1.1 keeps it by default, 1.0 does not."""
    if not keep_alive:
        return b"connection: close\r\n"
    return b"connection: keep-alive\r\n" if version == "1.0" else b""


def answer(
    status: int, body: bytes, content_type: bytes, extra: bytes, keep_alive: bool, version: str = "1.1", bodiless: bool = False
) -> bytes:
    """A whole answer of the router's own; `extra` are finished header lines. `bodiless`: to HEAD, which is told the length only."""
    connection = connection_line(version, keep_alive)
    head = b"content-type: %s\r\ncontent-length: %d\r\n" % (content_type, len(body))
    return status_line(status) + head + connection + extra + b"\r\n" + (b"" if bodiless else body)


def error_body(detail: str) -> bytes:
    """The protocol's error object."""
    return msgspec.json.encode({"error": detail})


def refusal_lines(error: WireError) -> bytes:
    """The reason as a word that programs can match, and `Retry-After` where the status promises one."""
    after = b"retry-after: 1\r\n" if error.status in (429, 503) else b""
    return b"x-helm-reason: %s\r\n" % error.code.encode() + after


def origin_form(target: bytes) -> bytes | None:
    """Path and query of a target that names scheme and authority too, as clients of a proxy send it; `None` for others."""
    match = _SCHEME_AND_AUTHORITY.match(target)
    if match is None:
        return None
    rest = target[match.end() :]
    return rest if rest.startswith(b"/") else b"/" + rest


def head_without_upgrade(method: bytes, target: bytes, version: str, headers: Headers) -> bytes:
    """A request's head as it was parsed, but for the other protocols that its client offers; nothing else may change."""
    lines = [b"%s: %s\r\n" % header for header in headers if header[0] != b"upgrade"]
    return b"%s %s HTTP/%s\r\n%s\r\n" % (method, target, version.encode(), b"".join(lines))


def framing_problem(headers: Headers, http_version: str) -> str | None:
    """Why these headers leave the message's end or its host in doubt; `None` when they do not.

    Two parsers that disagree about where a body ends are how requests are smuggled, so a doubt is a refusal.
    """
    lengths, encodings, hosts = 0, 0, 0
    length, encoding = b"0", b"chunked"
    for name, value in headers:
        if name == b"content-length":
            lengths, length = lengths + 1, value
        elif name == b"transfer-encoding":
            encodings, encoding = encodings + 1, value
        elif name == b"host":
            hosts += 1
    if lengths > 1:
        return "content-length must not be repeated"
    if not length.isdigit():
        return "content-length must be a number"
    if lengths and encodings:
        return "content-length and transfer-encoding must not be combined"
    if encodings > 1 or encoding.strip().lower() != b"chunked":
        return "transfer-encoding must be chunked, once"
    if hosts > 1 or (hosts == 0 and http_version == "1.1"):
        return "host must be given exactly once"
    return None
