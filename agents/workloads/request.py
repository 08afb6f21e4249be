"""One inference request as every stream yields it."""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class Request(NamedTuple):
    """What a client would send. Item ids are table rows; the history is newest last."""

    at_ns: int  # since the stream's start, non-decreasing
    user: int  # client's user id, hashed at the edge
    history_items: NDArray[np.int64]  # [n]
    history_actions: NDArray[np.int64]  # [n]
    history_ts: NDArray[np.int64]  # [n] unix seconds
    candidates: NDArray[np.int64]  # [c]


class Workload(Protocol):
    """A seeded stream: the same seed gives the same requests, byte for byte."""

    name: str
    duration_seconds: float

    def requests(self) -> Iterator[Request]:
        """Requests in order of `at_ns`."""
        ...
