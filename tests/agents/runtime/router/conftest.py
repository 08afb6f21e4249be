"""Every daemon test runs on the loop of production and on the standard library's."""

import asyncio
from collections.abc import Callable

import pytest
import uvloop


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The two implementations differ in what they do around closing."""
    return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}
