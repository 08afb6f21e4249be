"""Processes that simulate beside each other, and end with the one that started them."""

import gc
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import active_children, get_context

_LOOK_SECONDS = 1.0


@contextmanager
def simulating_processes(count: int) -> Iterator[ProcessPoolExecutor]:
    """A pool for the block. Whatever breaks in it, a signal's exception too, ends the workers at once; so does this process's death."""
    pool = ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_follow, initargs=(os.getpid(),))
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in active_children():
            child.kill()  # not SIGTERM: one that comes between fork and exec is lost, and then we wait for the worker's whole run
        raise
    pool.shutdown()


def forget_fleets() -> None:
    """Free fleets that are done, before the next: one is a web of references, and its arrays would wait for a full collection."""
    gc.collect()


def _follow(parent: int) -> None:
    """End with the parent: one that was killed cannot say goodbye, and workers would wait for it forever."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, name="follow-parent", daemon=True).start()
    gc.freeze()  # what was imported stays: no collection need look through it
