"""Requests between their arrival and their batch: bounded, in order of urgency, each answered exactly once."""

import asyncio
import math
from typing import NamedTuple

import numpy as np

from agents.node.queue import RequestQueue
from agents.runtime.ranking import RankRequest, RankResult
from agents.wire.errors import ErrorCode, WireError


class Waiting(NamedTuple):
    """A request that has been taken, its predicted work, and where its answer is awaited."""

    request: RankRequest
    arrival_ns: int
    work_ns: int
    answer: "asyncio.Future[RankResult]"

    def refuse(self, error: WireError) -> None:
        """End the wait without a result, unless it has ended already."""
        if not self.answer.done():
            self.answer.set_exception(error)


class WaitingRoom:
    """Holds at most `capacity` requests. Knows no clock: `now_ns` comes in."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._queue = RequestQueue(capacity)
        self._waiting: dict[int, Waiting] = {}
        self._next_id = 1

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def work_ns(self) -> int:
        """Predicted service time of everything that waits."""
        return self._queue.queued_ns

    def enter(self, waiting: Waiting, deadline_ns: int) -> int:
        """Take a request; returns its id. `WireError` when the room is full."""
        request_id = self._next_id
        if not self._queue.offer(request_id, waiting.request.user_key, waiting.arrival_ns, deadline_ns, waiting.work_ns):
            raise WireError(ErrorCode.QUEUE_FULL, f"the queue is full ({self.capacity} requests)")
        self._next_id += 1
        self._waiting[request_id] = waiting
        return request_id

    def leave(self, request_id: int) -> None:
        """Forget a request whose client has gone."""
        self._queue.drop(request_id)
        self._waiting.pop(request_id, None)

    def late(self, now_ns: int) -> list[Waiting]:
        """Take out those whose deadline has passed."""
        return [self._waiting.pop(request_id) for request_id in self._queue.expire(now_ns)] if self._waiting else []

    def next_batch(self, now_ns: int, size_max: int, busy_keys: list[int], device_idle: bool) -> list[Waiting]:
        """Take out the next batch; empty when it is better to wait. Nobody in `busy_keys` is in it."""
        if not self._waiting:
            return []
        ids = self._queue.close(now_ns, size_max, np.array(busy_keys, np.uint64), device_idle)
        return [self._waiting.pop(request_id) for request_id in ids]

    def empty(self) -> list[Waiting]:
        """Take out everybody."""
        for request_id in self._waiting:
            self._queue.drop(request_id)
        members = list(self._waiting.values())
        self._waiting.clear()
        return members


def retry_after_seconds(queued_ms: float) -> int:
    """When it makes sense to try again: the predicted work ahead, at least a second."""
    return max(1, math.ceil(queued_ms / 1e3))
