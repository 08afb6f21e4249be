"""The node's one device thread: jobs run in the order in which they were booked, answers come back on the loop.

Plans refer to memory that earlier plans freed or filled, so order is correctness here. A batch
that fails has filled nothing; batches booked upon it must not run. The fence sees to that: a
batch carries the number of failures known when it was booked, and is refused when there are more.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class SupersededError(Exception):
    """A batch was not run because one booked before it failed; it has to be booked again."""


class DeviceThread:
    """First in, first out. Callbacks run on the event loop, in the same order."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="device")
        self._failures = 0  # written by the device thread only

    def submit(self, work: Callable[[], T], done: Callable[[Future[T]], None]) -> None:
        """Run `work` after everything submitted before; `done` gets its finished future on the loop."""
        self._executor.submit(work).add_done_callback(lambda future: self._hand_over(future, done))

    def submit_batch(self, fence: int, work: Callable[[], T], done: Callable[[Future[T]], None]) -> None:
        """Like `submit`, but refused with `SupersededError` when more than `fence` batches have failed."""
        self.submit(lambda: self._fenced(fence, work), done)

    def close(self) -> None:
        """Run what was submitted, then end the thread."""
        self._executor.shutdown(wait=True)

    def _fenced(self, fence: int, work: Callable[[], T]) -> T:
        if self._failures != fence:
            raise SupersededError
        try:
            return work()
        except BaseException:
            self._failures += 1
            raise

    def _hand_over(self, future: Future[T], done: Callable[[Future[T]], None]) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(done, future)
