from pathlib import Path

import pytest
import torch

from agents.runtime.device.table import ensure_table
from tests.agents.runtime.device.parts import PROFILE, SHAPE


@pytest.fixture(scope="session")
def table_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ensure_table(tmp_path_factory.mktemp("tables"), PROFILE.rows, SHAPE.dim, seed=1)


@pytest.fixture(autouse=True, scope="session")
def one_torch_thread() -> None:
    """As on a node; a second thread on a busy host makes small products wait for each other."""
    torch.set_num_threads(1)
