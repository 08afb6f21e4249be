"""A client of the REST API for the command line: finds address and token, turns refusals into sentences."""

import functools
import json
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec

import httpx

from apps.lib.sizes import parse_bytes
from helmctl.supervisor.state import find_state_folder

PATIENCE_SECONDS = 10.0  # a local control plane answers in milliseconds; slower is broken, not busy
EXIT_REFUSED, EXIT_BAD_INPUT = 1, 2


class CommandRefused(Exception):
    """What the user sees instead of a traceback, and the exit code that goes with it."""

    def __init__(self, message: str, exit_code: int = EXIT_REFUSED) -> None:
        super().__init__(message)
        self.exit_code = exit_code


P = ParamSpec("P")


def refusals_said(command: Callable[P, None]) -> Callable[P, int]:
    """A command that says a refusal in one line and returns its exit code."""

    @functools.wraps(command)
    def said(*args: P.args, **kwargs: P.kwargs) -> int:
        try:
            command(*args, **kwargs)
        except CommandRefused as refusal:
            sys.stderr.write(f"helmctl: {refusal}\n")
            return refusal.exit_code
        return 0

    return said


class Address(NamedTuple):
    """Where the control plane is, and the token to use."""

    url: str
    token: str


def find_address() -> Address:
    """`HELM_URL` and `HELM_TOKEN`, else `cli.json` in this machine's state folder."""
    url, token = os.environ.get("HELM_URL", ""), os.environ.get("HELM_TOKEN", "")
    path = find_state_folder().root / "cli.json"
    if (not url or not token) and path.is_file():
        held = _read(path)
        url, token = url or held["url"], token or held["token"]
    if not url or not token:
        raise CommandRefused("no control plane known: start one with `make up`, or set HELM_URL and HELM_TOKEN", EXIT_BAD_INPUT)
    return Address(url.rstrip("/"), token)


def _read(path: Path) -> dict[str, str]:
    try:
        held = json.loads(path.read_text("utf-8"))
        return {"url": str(held["url"]), "token": str(held["token"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CommandRefused(f"{path} cannot be read: {error}", EXIT_BAD_INPUT) from error


class Client:
    """The API's verbs. Every refusal is raised as `CommandRefused` with the server's own sentence."""

    def __init__(self, address: Address, transport: httpx.BaseTransport | None = None) -> None:
        self._http = httpx.Client(
            base_url=address.url,
            headers={"Authorization": f"Bearer {address.token}", "Accept": "application/json"},
            timeout=PATIENCE_SECONDS,
            transport=transport,
            # A proxy of the environment must not see the loopback.
            trust_env=False,
        )

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(self, path: str, **query: Any) -> Any:
        """The document at a path under `/api/v1/`."""
        return self._call("GET", path, params=query).json()

    def get_all(self, path: str) -> list[Any]:
        """Every page of a list."""
        page = self.get(path, page_size=500)
        results = list(page["results"])
        while page.get("next"):
            page = self._call("GET", page["next"]).json()
            results += page["results"]
        return results

    def post(self, path: str, body: dict[str, Any], *, if_match: str = "", dry_run: bool = False) -> Any:
        """Write; `if_match` says which version the decision was made on."""
        headers = {"If-Match": if_match} if if_match else {}
        return self._call("POST", path, json=body, headers=headers, params={"dry_run": "true"} if dry_run else {}).json()

    def delete(self, path: str) -> Any:
        """Delete or cancel."""
        response = self._call("DELETE", path)
        return response.json() if response.content else None

    def node(self, name: str) -> tuple[Any, str]:
        """A node's document and its ETag."""
        response = self._call("GET", f"nodes/{_segment(name)}/")
        return response.json(), response.headers["ETag"]

    def decisions(self, name: str, count: int) -> list[Any]:
        """The newest decisions of a node's controller, newest first."""
        return list(self.get(f"nodes/{_segment(name)}/decisions/", page_size=count)["results"])

    def _call(self, method: str, path: str, **options: Any) -> httpx.Response:
        url = path if path.startswith("http") else f"/api/v1/{path}"
        try:
            response = self._http.request(method, url, **options)
        except httpx.HTTPError as error:
            raise CommandRefused(f"the control plane at {self._http.base_url} does not answer: {error}") from error
        if response.is_error:
            raise CommandRefused(_sentence(response), EXIT_BAD_INPUT if response.status_code in {400, 422} else EXIT_REFUSED)
        return response


def open_client() -> Client:
    """A client of the control plane that is found."""
    return Client(find_address())


def _segment(name: str) -> str:
    """A name as one segment of a path."""
    if not name or "/" in name or name in {".", ".."}:
        raise CommandRefused(f"{name!r} is no node name", EXIT_BAD_INPUT)
    return name


def _sentence(response: httpx.Response) -> str:
    try:
        problem = response.json()
        return f"{problem['detail']} ({response.status_code} {problem['code']})"
    except (ValueError, KeyError, TypeError):
        return f"the control plane answered {response.status_code}"


def parse_ratio(text: str) -> float:
    """A share of the pool; what the cluster allows is the server's business."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise CommandRefused(f"RATIO: {text!r} is no number such as 0.6", EXIT_BAD_INPUT)
    return value


def parse_size_bytes(text: str) -> int | None:
    """`512MiB`, `40GiB` or bytes; `default` is `None`: all that the node has."""
    if text == "default":
        return None
    try:
        return parse_bytes(text)
    except ValueError as error:
        raise CommandRefused(f"SIZE: {error}", EXIT_BAD_INPUT) from error


def parse_duration_seconds(text: str) -> int:
    """`90`, `90s`, `30m` or `2h` in seconds."""
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    number, unit = (text[:-1], units[text[-1]]) if text and text[-1] in units else (text, 1)
    try:
        seconds = float(number) * unit
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds) or seconds != int(seconds):
        raise CommandRefused(f"--ttl: {text!r} is no duration such as 90s, 30m or 2h", EXIT_BAD_INPUT)
    return int(seconds)
