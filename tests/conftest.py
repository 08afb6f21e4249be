"""Compiled kernels of exactly these sources, for the tests and every process they start."""

import pytest

from helmctl.supervisor.state import find_state_folder

_STATE = find_state_folder({})  # the clone's: what the tests' settings name is empty, and everything would be compiled again
_STATE.prepare()
_STATE.adopt_caches()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Browser tests last: Playwright keeps an event loop running in this thread until the session ends."""
    items.sort(key=lambda item: "tests/e2e/" in item.path.as_posix())
