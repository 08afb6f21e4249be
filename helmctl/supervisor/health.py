"""Is it up? One question, asked by URL: `http://...` for a 2xx answer, `unix://:PASSWORD@PATH` or
`redis://:PASSWORD@HOST:PORT` for a Redis PONG."""

import asyncio
import sys
from urllib.parse import unquote, urlsplit

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
        lines = await _exchange(parts.hostname or "", parts.port or 80, request.encode(), 1)
        return lines[0].split(b" ")[1:2] in ([b"200"], [b"204"])
    if parts.scheme not in ("unix", "redis"):
        raise ValueError(f"no way to ask {parts.scheme}")
    password = unquote(parts.password or "")
    requests = [*([f"AUTH {password}\r\n"] if password else []), "PING\r\n"]
    host, port = (parts.path, None) if parts.scheme == "unix" else (parts.hostname or "", parts.port or 6379)
    lines = await _exchange(host, port, "".join(requests).encode(), len(requests))
    return lines[-1] == b"+PONG\r\n"


async def _exchange(host: str, port: int | None, request: bytes, lines: int) -> list[bytes]:
    """First lines of the answer to `request`; `host` is a socket's path when there is no port."""
    reader, writer = await (asyncio.open_unix_connection(host) if port is None else asyncio.open_connection(host, port))
    try:
        writer.write(request)
        return [await reader.readuntil(b"\n") for _ in range(lines)]
    finally:
        writer.close()


if __name__ == "__main__":  # a container's health check
    sys.exit(0 if asyncio.run(is_healthy(sys.argv[1])) else 1)
