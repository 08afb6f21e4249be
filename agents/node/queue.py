"""Which requests wait, in which order they leave, and when a batch is closed.

A bounded queue over flat arrays, in order of arrival. A batch takes the earliest deadlines first
(arrival breaks ties) and at most one request of a user, none of a user who is being served now:
a second request would find the first one's prefix unfinished, and find it complete a moment later.

The closing rule. An idle device takes what is there: waiting for company would be latency without
gain. A busy device gets its next batch prepared only when a full one is waiting, because until
then company may still come. A batch stops growing when one more request would make the most
urgent one late; a request that is late anyway does not hold the others back.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.numerics.jit import bound_by_first_call, kernel

NO_USER = 0  # user key of nobody: never in the way of another request


class QueueState(NamedTuple):
    """Struct of arrays; the first `size[0]` places are in use, oldest arrival first."""

    size: NDArray[np.int64]  # [1]
    request_id: NDArray[np.int64]  # [Q]
    user_key: NDArray[np.uint64]  # [Q]
    arrival_ns: NDArray[np.int64]  # [Q]
    deadline_ns: NDArray[np.int64]  # [Q]
    work_ns: NDArray[np.int64]  # [Q] predicted service time
    mark: NDArray[np.int8]  # [Q] scratch of one call: who stays out of a batch, who leaves


_FREE = 0
_BARRED = 1
_LEAVING = 2


@kernel
def push(state: QueueState, request_id: int, user_key: np.uint64, arrival_ns: int, deadline_ns: int, work_ns: int) -> bool:
    """Append a request; False when the queue is full."""
    place = state.size[0]
    if place == state.request_id.shape[0]:
        return False
    state.request_id[place] = request_id
    state.user_key[place] = user_key
    state.arrival_ns[place] = arrival_ns
    state.deadline_ns[place] = deadline_ns
    state.work_ns[place] = work_ns
    state.size[0] = place + 1
    return True


@kernel
def _close_gaps(state: QueueState) -> None:
    """Drop the places marked as leaving; arrival order stays."""
    kept = 0
    for place in range(state.size[0]):
        if state.mark[place] == _LEAVING:
            continue
        state.request_id[kept] = state.request_id[place]
        state.user_key[kept] = state.user_key[place]
        state.arrival_ns[kept] = state.arrival_ns[place]
        state.deadline_ns[kept] = state.deadline_ns[place]
        state.work_ns[kept] = state.work_ns[place]
        kept += 1
    state.size[0] = kept


@kernel
def remove(state: QueueState, request_id: int) -> bool:
    """Take one request out; False when it is not waiting."""
    found = False
    for place in range(state.size[0]):
        leaves = state.request_id[place] == request_id
        state.mark[place] = _LEAVING if leaves else _FREE
        found |= leaves
    if found:
        _close_gaps(state)
    return found


@kernel
def expire(state: QueueState, now_ns: int, out: NDArray[np.int64]) -> int:
    """Take out every request whose deadline has passed; ids go to `out`, returns how many."""
    count = 0
    for place in range(state.size[0]):
        late = state.deadline_ns[place] <= now_ns
        state.mark[place] = _LEAVING if late else _FREE
        if late:
            out[count] = state.request_id[place]
            count += 1
    if count:
        _close_gaps(state)
    return count


@kernel
def _blocked(key: np.uint64, busy_keys: NDArray[np.uint64]) -> bool:
    if key == NO_USER:
        return False
    blocked = False
    for position in range(busy_keys.shape[0]):
        blocked |= busy_keys[position] == key
    return blocked


@kernel
def _most_urgent(state: QueueState) -> int:
    """Place of the earliest deadline that is free to go, -1 when there is none; older arrivals win ties."""
    best = -1
    for place in range(state.size[0]):
        if state.mark[place] == _FREE and (best == -1 or state.deadline_ns[place] < state.deadline_ns[best]):
            best = place
    return best


@kernel
def _would_be_late(state: QueueState, first: int, now_ns: int, work_ns: int, more_ns: int) -> bool:
    """Whether `more_ns` of further work makes the first of the batch miss a deadline it can meet so far."""
    slack_ns = state.deadline_ns[first] - now_ns - work_ns
    return bool(slack_ns >= 0 and more_ns > slack_ns)


@kernel
def close_batch(
    state: QueueState, now_ns: int, batch_max: int, busy_keys: NDArray[np.uint64], device_idle: bool, out: NDArray[np.int64]
) -> int:
    """Choose and take out the next batch; ids go to `out` in order, returns how many (0: not yet)."""
    waiting = state.size[0]
    for place in range(waiting):
        state.mark[place] = _BARRED if _blocked(state.user_key[place], busy_keys) else _FREE
    first, count, work_ns = -1, 0, 0
    full = False
    while count < batch_max:
        place = _most_urgent(state)
        if place == -1:
            break
        if first != -1 and _would_be_late(state, first, now_ns, work_ns, state.work_ns[place]):
            full = True
            break
        if first == -1:
            first = place
        state.mark[place] = _LEAVING
        out[count] = state.request_id[place]
        work_ns += state.work_ns[place]
        count += 1
        _bar_others_of(state, state.user_key[place])
    if not device_idle and count < batch_max and not full:
        return 0
    _close_gaps(state)
    return count


@kernel
def _bar_others_of(state: QueueState, key: np.uint64) -> None:
    """Keep a chosen user's other requests out of this batch."""
    if key == NO_USER:
        return
    for place in range(state.size[0]):
        if state.user_key[place] == key and state.mark[place] == _FREE:
            state.mark[place] = _BARRED


@kernel
def queued_work_ns(size: int, work_ns: NDArray[np.int64]) -> int:
    """Predicted service time of everything that waits: of the first `size` places."""
    total = 0
    for place in range(size):
        total += work_ns[place]
    return total


class RequestQueue:
    """The queue as its bodies use it. `capacity` bounds memory and how stale an answer can be."""

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError("capacity must be at least 1")
        self.state = QueueState(
            size=np.zeros(1, np.int64),
            request_id=np.zeros(capacity, np.int64),
            user_key=np.zeros(capacity, np.uint64),
            arrival_ns=np.zeros(capacity, np.int64),
            deadline_ns=np.zeros(capacity, np.int64),
            work_ns=np.zeros(capacity, np.int64),
            mark=np.zeros(capacity, np.int8),
        )
        self._out = np.zeros(capacity, np.int64)
        self._push = bound_by_first_call(push)
        self._expire = bound_by_first_call(expire)
        self._close_batch = bound_by_first_call(close_batch)

    def __len__(self) -> int:
        return int(self.state.size[0])

    @property
    def queued_ns(self) -> int:
        """Predicted service time of everything that waits."""
        return int(queued_work_ns(len(self), self.state.work_ns))

    def offer(self, request_id: int, user_key: int, arrival_ns: int, deadline_ns: int, work_ns: int) -> bool:
        """Append a request; False when the queue is full."""
        return self._push(self.state, request_id, np.uint64(user_key), arrival_ns, deadline_ns, work_ns)

    def drop(self, request_id: int) -> bool:
        """Forget a request whose client has gone; False when it is not waiting any more."""
        return bool(remove(self.state, request_id))

    def expire(self, now_ns: int) -> list[int]:
        """Take out and name the requests whose deadline has passed."""
        count = self._expire(self.state, now_ns, self._out)
        late: list[int] = self._out[:count].tolist() if count else []
        return late

    def close(self, now_ns: int, batch_max: int, busy_keys: NDArray[np.uint64], device_idle: bool) -> list[int]:
        """Take out and name the next batch, most urgent first; empty when it is better to wait."""
        count = self._close_batch(self.state, now_ns, batch_max, busy_keys, device_idle, self._out)
        ids: list[int] = self._out[:count].tolist()
        return ids
