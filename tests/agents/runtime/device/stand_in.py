"""CUDA's streams and events without a GPU, so that the CUDA device's own code is run everywhere.

Work is done at once on the CPU. What a GPU would do wrong, such as reading before a copy has arrived,
this cannot show; an event that was never recorded and a stream that is not a stream it does.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from agents.runtime.device import cuda


class Stream:
    def __init__(self, device: torch.device, priority: int = 0) -> None:
        assert device == torch.device("cpu")
        self.priority = priority

    def wait_event(self, event: "Event") -> None:
        assert event.at is not None

    def synchronize(self) -> None:
        """Everything is done already."""


class Event:
    def __init__(self, enable_timing: bool = False) -> None:
        self.timed = enable_timing
        self.at: float | None = None

    def record(self, stream: Stream | None = None) -> None:
        assert stream is None or isinstance(stream, Stream)
        self.at = time.perf_counter()

    def query(self) -> bool:
        return self.at is not None

    def synchronize(self) -> None:
        assert self.at is not None

    def elapsed_time(self, later: "Event") -> float:
        assert self.timed and later.timed and self.at is not None and later.at is not None
        return (later.at - self.at) * 1e3


@contextmanager
def _on(stream: Stream) -> Iterator[None]:
    assert isinstance(stream, Stream)
    yield


def stand_in(patch: pytest.MonkeyPatch) -> None:
    """Let the CUDA device run on the CPU while `patch` holds."""
    compute = Stream(torch.device("cpu"))
    patch.setattr(torch.cuda, "is_available", lambda: True)
    patch.setattr(torch.cuda, "Stream", Stream)
    patch.setattr(torch.cuda, "Event", Event)
    patch.setattr(torch.cuda, "stream", _on)
    patch.setattr(torch.cuda, "current_stream", lambda device: compute)
    patch.setattr(torch.cuda, "synchronize", lambda device: None)
    patch.setattr(torch.cuda, "empty_cache", lambda: None)
    patch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: None)
    patch.setattr(cuda, "_current_device", lambda: torch.device("cpu"))
    patch.setattr(cuda, "_pinned", lambda size, dtype: torch.empty(size, dtype=dtype))
