"""The control plane as real processes on the loopback, with a database and a Redis of its own."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psutil
from websockets.sync.client import ClientConnection, connect

from agents.wire.messages import AgentFrame, SpecCommand
from tests.apps.conftest import start_redis
from tests.apps.frames import hello
from tests.patience import free_port, until

ROOT = Path(__file__).resolve().parents[3]
PATIENCE_SECONDS = 60.0  # two shared cores; nothing here waits this long unless it is broken


class System:
    """Processes by name; whatever was started is ended by `close`."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="helm-s-", dir="/tmp"))  # short: it holds a socket
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.redis_socket = self.folder / "redis.sock"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._environment = {
            **os.environ,
            "HELM_STATE_DIR": str(self.folder),
            "HELM_PUBLIC_URL": self.url,
            "DATABASE_URL": "",
            "REDIS_URL": f"unix://{self.redis_socket}",
            "DJANGO_SETTINGS_MODULE": "helmctl.settings",
        }
        self.manage("migrate", "--verbosity", "0")
        self.seeded = json.loads(self.manage("seed_local"))
        self.token = json.loads((self.folder / "cli.json").read_text())["token"]
        self.http = httpx.Client(base_url=f"{self.url}/api/v1/", headers=self.bearer(self.token), timeout=20.0, trust_env=False)

    @staticmethod
    def bearer(secret: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {secret}"}

    def manage(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "manage.py", *arguments], cwd=ROOT, env=self._environment, check=True, capture_output=True, timeout=120
        )
        return done.stdout.decode()

    def start(self, name: str, *command: str) -> "subprocess.Popen[bytes]":
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(command, cwd=ROOT, env=self._environment, stdout=log, stderr=log)
        self._processes[name] = process
        return process

    def start_redis(self) -> None:
        self.redis_socket.unlink(missing_ok=True)
        self._processes["redis"] = start_redis(self.folder, self.redis_socket)

    def start_web(self, name: str = "web", port: int | None = None) -> None:
        port = port or self.port
        serve = ["-m", "uvicorn", "helmctl.asgi:application", "--port", str(port), "--ws", "websockets-sansio", "--log-level", "warning"]
        serve += ["--timeout-graceful-shutdown", "3"]  # as in production: a socket that is just closing would be waited for without end
        self.start(name, sys.executable, *serve)
        until(f"{name} to answer", lambda: self.answers(port))

    def start_worker(self, name: str = "worker") -> None:
        self.start(
            name, sys.executable, "-m", "celery", "-A", "helmctl.celery", "worker", "-c", "4", "--loglevel", "info", "-n", f"{name}@%h"
        )
        until(f"{name} to be ready", lambda: b" ready." in (self.folder / f"{name}.log").read_bytes())

    def answers(self, port: int) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=5, trust_env=False).status_code == 200
        return False

    def signal(self, name: str, number: int) -> None:
        self._processes[name].send_signal(number)

    def kill(self, name: str) -> None:
        """End a process and its children without a word, as a lost machine would."""
        process = self._processes.pop(name)
        children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.kill()
        process.wait()
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()

    def stop(self, name: str) -> None:
        process = self._processes.pop(name)
        process.terminate()
        process.wait(timeout=30)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def close(self) -> None:
        self.http.close()
        for name in list(self._processes):
            self.kill(name)
        shutil.rmtree(self.folder, ignore_errors=True)

    # --- people and nodes -------------------------------------------------------------------

    def get(self, path: str, **query: Any) -> Any:
        return self.http.get(path, params=query).raise_for_status().json()

    def enrol(self, name: str) -> str:
        """A new node's credential."""
        token = self.http.post("enrolments/", json={"node_name": name}).raise_for_status().json()["token"]
        body = {"token": token, "name": name, "profile": "cpu-demo", "infer_url": "http://127.0.0.1:8790"}
        answer = httpx.post(f"{self.url}/api/v1/enrol/", json=body, trust_env=False).raise_for_status()
        return str(answer.json()["credential"])

    def override(self, name: str, emb_ratio: float, ttl_seconds: int = 600) -> Any:
        return self._take(name, "override", {"emb_ratio": emb_ratio, "ttl_seconds": ttl_seconds})

    def resize(self, name: str, pool_bytes: int | None) -> Any:
        return self._take(name, "resize", {"pool_bytes": pool_bytes})

    def _take(self, name: str, verb: str, body: dict[str, Any]) -> Any:
        etag = self.http.get(f"nodes/{name}/").headers["ETag"]
        answer = self.http.post(f"nodes/{name}/{verb}/", json={**body, "reason": "a test"}, headers={"If-Match": etag})
        return answer.raise_for_status().json()

    def console(self, query: str = "", token: str | None = None, port: int | None = None) -> "Console":
        return Console(port or self.port, query, self.token if token is None else token)


class Agent:
    """A node's end of the link, frame by frame."""

    def __init__(self, port: int, credential: str, name: str, *, greet: bool = True, **greeting: Any) -> None:
        self.name = name
        self._socket: ClientConnection = connect(
            f"ws://127.0.0.1:{port}/agents/v1/link", additional_headers=System.bearer(credential), open_timeout=20, proxy=None, legacy=True
        )
        if greet:
            self.send(hello(name, **greeting))

    def send(self, frame: AgentFrame) -> None:
        self._socket.send(msgspec.msgpack.encode(frame))

    def send_raw(self, data: bytes | str) -> None:
        self._socket.send(data)

    def command(self, seconds: float = PATIENCE_SECONDS) -> SpecCommand:
        return msgspec.msgpack.decode(self._socket.recv(timeout=seconds), type=SpecCommand)

    def silent_for(self, seconds: float) -> bool:
        """No command for so long."""
        try:
            self._socket.recv(timeout=seconds)
        except TimeoutError:
            return True
        return False

    def close(self) -> None:
        self._socket.close()

    def vanish(self) -> None:
        """Gone as a killed process is: no closing handshake."""
        self._socket.socket.shutdown(socket.SHUT_RDWR)
        self._socket.socket.close()


class Console:
    """A console's end of the stream."""

    def __init__(self, port: int, query: str, token: str) -> None:
        headers = System.bearer(token) if token else {}
        self.socket: ClientConnection = connect(
            f"ws://127.0.0.1:{port}/api/v1/stream{query}",
            additional_headers=headers,
            open_timeout=20,
            proxy=None,
            legacy=True,
            max_size=None,
        )

    def next(self, seconds: float = PATIENCE_SECONDS) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self.socket.recv(timeout=seconds))
        return message

    def next_of(self, *kinds: str, where: Callable[[dict[str, Any]], bool] = lambda _: True) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            message = self.next()
            if message["type"] in kinds and where(message):
                return message
        raise AssertionError(f"no {kinds} came")

    def close(self) -> None:
        self.socket.close()
