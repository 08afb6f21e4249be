"""Is it up? One question, asked by URL.

`http://...` wants a 2xx answer; `redis[s]://:PASSWORD@HOST:PORT/DB` or `unix://:PASSWORD@PATH?db=DB` wants a PONG; with
`#NAME` behind a Redis it wants the sign of life that a process of that name on this machine keeps there. A process
without a port is asked so because Celery's own ping costs seconds of CPU for the imports alone.
"""

import asyncio
import socket
import ssl
import sys
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

TIMEOUT_SECONDS = 2.0  # a saturated two-core machine answers late, a dead process at once


def alive_key(name: str) -> str:
    """The Redis key of a process's sign of life; every machine has its own, so that none hides another's death."""
    return f"helm:alive:{name}@{socket.gethostname()}"


async def is_healthy(url: str, timeout_seconds: float = TIMEOUT_SECONDS) -> bool:
    """Whether `url` answers as a healthy process does; every failure is the same plain no."""
    try:
        async with asyncio.timeout(timeout_seconds):
            return await _ask(url)
    except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError):
        return False


async def wait_healthy(url: str, period_seconds: float) -> None:
    """Ask `url` until it answers; the other side cannot tell us, it does not know who waits."""
    while not await is_healthy(url):  # noqa: ASYNC110  what we wait for happens in another process
        await asyncio.sleep(period_seconds)


async def _ask(url: str) -> bool:
    parts = urlsplit(url)
    if parts.scheme == "http":
        request = f"GET {parts.path or '/'} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n"
        lines = await _exchange(parts.hostname or "", parts.port or 80, request.encode(), 1)
        return lines[0].split(b" ")[1:2] in ([b"200"], [b"204"])
    if parts.scheme not in ("unix", "redis", "rediss"):
        raise ValueError(f"no way to ask {parts.scheme}")
    requests = [*_opening(parts), ("EXISTS", alive_key(parts.fragment)) if parts.fragment else ("PING",)]
    host, port = (parts.path, None) if parts.scheme == "unix" else (parts.hostname or "", parts.port or 6379)
    data = b"".join(_command(*words) for words in requests)
    lines = await _exchange(host, port, data, len(requests), _encryption(parts))
    return lines[-1] == (b":1\r\n" if parts.fragment else b"+PONG\r\n")


def _opening(parts: SplitResult) -> list[tuple[str, ...]]:
    """Sign in and choose the database, as the address says."""
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    named = _option(parts, "db") or ("" if parts.scheme == "unix" else parts.path.strip("/"))
    sign_in = [("AUTH", *([user] if user else []), password)] if password else []
    return [*sign_in, *([("SELECT", named)] if named not in ("", "0") else [])]


def _encryption(parts: SplitResult) -> ssl.SSLContext | None:
    """TLS for `rediss://`, with the options that the clients read from the same address."""
    if parts.scheme != "rediss":
        return None
    context = ssl.create_default_context(cafile=_option(parts, "ssl_ca_certs") or None)
    if _option(parts, "ssl_cert_reqs") == "none":
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _option(parts: SplitResult, name: str) -> str:
    return parse_qs(parts.query).get(name, [""])[-1]


def _command(*words: str) -> bytes:
    """One command in Redis' protocol, where a password may hold any character."""
    texts = [word.encode() for word in words]
    return b"*%d\r\n" % len(texts) + b"".join(b"$%d\r\n%s\r\n" % (len(text), text) for text in texts)


async def _exchange(host: str, port: int | None, request: bytes, lines: int, tls: ssl.SSLContext | None = None) -> list[bytes]:
    """First lines of the answer to `request`; `host` is a socket's path when there is no port."""
    reader, writer = await (asyncio.open_unix_connection(host) if port is None else asyncio.open_connection(host, port, ssl=tls))
    try:
        writer.write(request)
        return [await reader.readuntil(b"\n") for _ in range(lines)]
    finally:
        writer.close()


if __name__ == "__main__":  # a container's health check
    sys.exit(0 if asyncio.run(is_healthy(sys.argv[1])) else 1)
