from pathlib import Path

import pytest

from agents.runtime.device.table import ensure_table
from tests.agents.runtime.device.parts import PROFILE, SHAPE


@pytest.fixture(scope="session")
def table_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ensure_table(tmp_path_factory.mktemp("tables"), PROFILE.rows, SHAPE.dim, seed=1)
