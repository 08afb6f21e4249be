"""Is it up? One question, asked by URL: `http://...` for a 2xx answer, `unix:PATH` or `tcp://HOST:PORT` for a Redis PONG."""

import asyncio
import sys
from urllib.parse import urlsplit

TIMEOUT_SECONDS = 2.0  # a saturated two-core machine answers late, a dead process at once


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
        line = await _exchange(parts.hostname or "", parts.port or 80, request.encode())
        return line.split(b" ")[1:2] in ([b"200"], [b"204"])
    if parts.scheme == "unix":
        return await _exchange(parts.path, None, b"PING\r\n") == b"+PONG\r\n"
    if parts.scheme == "tcp":
        return await _exchange(parts.hostname or "", parts.port or 6379, b"PING\r\n") == b"+PONG\r\n"
    raise ValueError(f"no way to ask {url!r}")


async def _exchange(host: str, port: int | None, request: bytes) -> bytes:
    """First line of the answer to `request`; `host` is a socket's path when there is no port."""
    reader, writer = await (asyncio.open_unix_connection(host) if port is None else asyncio.open_connection(host, port))
    try:
        writer.write(request)
        return await reader.readuntil(b"\n")
    finally:
        writer.close()


if __name__ == "__main__":  # a container's health check
    sys.exit(0 if asyncio.run(is_healthy(sys.argv[1])) else 1)
