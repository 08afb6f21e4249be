"""One running control plane for the tests that only talk to it."""

from collections.abc import Iterator

import pytest

from tests.apps.live.system import System


@pytest.fixture(scope="session")
def system() -> Iterator[System]:
    """Redis and one web process."""
    running = System()
    running.start_redis()
    running.start_web()
    yield running
    running.close()


@pytest.fixture(scope="module")
def own_system() -> Iterator[System]:
    """A control plane to break; every test leaves it running."""
    running = System()
    running.start_redis()
    running.start_web()
    yield running
    running.close()
