"""A throw-away PostgreSQL server of our own, run by a user without rights because the server refuses root."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.patience import free_port

USER = "nobody"
OWNER = "helm"


def program(name: str) -> str:
    """A program by name: on the PATH, among those for administrators, or where `pg_config` says."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if found is None and shutil.which("pg_config"):
        folder = subprocess.run(["pg_config", "--bindir"], capture_output=True, text=True, check=True).stdout.strip()
        found = shutil.which(name, path=folder)
    if found is None:
        pytest.fail(f"{name} is needed for these tests: install PostgreSQL's server (apt-get install postgresql)", pytrace=False)
    return str(Path(found).resolve())


def as_server_user(*command: str) -> None:
    prefix = [program("runuser"), "-u", USER, "--"] if os.geteuid() == 0 else []
    subprocess.run([*prefix, *command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd="/tmp", timeout=60)


@contextmanager
def running_postgres(password: str | None = None) -> Iterator[int]:
    """The port on the loopback of a server whose owner `helm` signs in with `password`, or without one."""
    initdb, control = program("initdb"), program("pg_ctl")
    folder = Path(tempfile.mkdtemp(prefix="helm-pg-", dir="/tmp"))
    secret, data = folder / "password", folder / "data"
    secret.write_text(f"{password or ''}\n")
    if os.geteuid() == 0:
        for path in (folder, secret):
            shutil.chown(path, USER)
    sign_in = ["-A", "trust"] if password is None else ["-A", "scram-sha-256", "--pwfile", str(secret)]
    port = free_port()
    try:
        as_server_user(initdb, "-D", str(data), "--no-sync", "-U", OWNER, "-E", "UTF8", *sign_in)
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        as_server_user(control, "-D", str(data), "-w", "-l", str(folder / "log"), "-o", options, "start")
        try:
            yield port
        finally:
            as_server_user(control, "-D", str(data), "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
