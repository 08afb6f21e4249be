import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_torch_thread() -> None:
    """As on a node; a second thread on a busy host makes small products wait for each other."""
    torch.set_num_threads(1)
