"""The only door to Numba: one typed wrapper, so that every kernel is compiled the same way.

Kernels are cached on disk (NUMBA_CACHE_DIR, set by the launcher to the state folder) so that
a second start compiles nothing, and release the GIL so that a tick never blocks the serving loop.
"""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import numba

P = ParamSpec("P")
R = TypeVar("R")


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile `function` in nopython mode; IEEE semantics are kept (NaN must stay visible)."""
    compiled: Callable[P, R] = numba.njit(cache=True, nogil=True, error_model="numpy")(function)
    return compiled
