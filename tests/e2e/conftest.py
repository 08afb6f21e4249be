"""A browser, a control plane in its own processes, and nodes on strings."""

import os
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from helmctl.supervisor.browser import MISSING, find_browser
from helmctl.supervisor.console import build_console
from helmctl.supervisor.state import StateFolder
from tests.e2e.puppet import Puppet
from tests.e2e.stage import PASSWORD, Stage

# A stalled machine is no failure of the page: this is how long an expectation may take, not how long it takes.
EXPECT_MS = 15_000
expect.set_options(timeout=EXPECT_MS)


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args: dict[str, Any]) -> dict[str, Any]:
    """Whatever Chromium the machine has. Without one the run fails with one line; it does not skip."""
    path = find_browser()
    if path is None:
        pytest.fail(MISSING, pytrace=False)
    return {**browser_type_launch_args, "executable_path": path, "args": ["--disable-dev-shm-usage"]}


@pytest.fixture(scope="session")
def stage() -> Iterator[Stage]:
    """The control plane, serving the console as it was built from the present sources."""
    stage = Stage()
    try:
        build_console(StateFolder(stage.folder), print, os.environ)
        stage.set_up()
        yield stage
    finally:
        stage.tear_down()


@pytest.fixture(scope="session")
def admin(stage: Stage) -> Iterator[httpx.Client]:
    """The admin, over plain HTTP."""
    with httpx.Client(headers={"Origin": stage.url}) as client:
        signed_in = client.post(f"{stage.url}/api/v1/session/", json={"username": "anna", "password": PASSWORD})
        signed_in.raise_for_status()
        client.headers["X-CSRFToken"] = signed_in.json()["csrf_token"]
        yield client


@pytest.fixture(scope="session")
def puppets(stage: Stage, admin: httpx.Client) -> Iterator[dict[str, Puppet]]:
    """Two nodes: one healthy, one over its SLO."""
    made = {
        "node-0": Puppet(stage.url, admin, "node-0", latency_ms_p99=42.0, emb_ratio=0.40),
        "node-1": Puppet(stage.url, admin, "node-1", latency_ms_p99=75.5, emb_ratio=0.55),
    }
    for puppet in made.values():
        puppet.start()
    yield made
    for puppet in made.values():
        puppet.stop()


SignIn = Callable[[str], Page]


@pytest.fixture
def sign_in(page: Page, stage: Stage) -> SignIn:
    """A page of somebody who is signed in; every complaint of the browser fails the test."""

    def enter(name: str) -> Page:
        answer = page.request.post(
            f"{stage.url}/api/v1/session/", data={"username": name, "password": PASSWORD}, headers={"Origin": stage.url}
        )
        assert answer.ok, answer.text()
        return page

    return enter


@pytest.fixture(autouse=True)
def _no_script_errors(page: Page) -> Iterator[None]:
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield
    assert errors == []
