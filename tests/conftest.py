"""Which tests run beside which, and which last."""

import pytest

_APART = ("tests/agents/", "tests/contracts/", "tests/helmctl/")  # files that share no server, database or port with others


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Browser tests last: Playwright keeps an event loop running in this thread until the session ends.

    Where workers share the tests, those that start whole systems stay with one of them, and are handed out first.
    """
    items.sort(key=lambda item: ("tests/e2e/" in item.path.as_posix(), _group(item) != "systems"))
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_group(item)))


def _group(item: pytest.Item) -> str:
    path = item.path.as_posix()
    return path if any(folder in path for folder in _APART) else "systems"
