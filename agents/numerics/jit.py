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
    """Compile `function` in nopython mode; IEEE semantics are kept (NaN must stay visible).

    Without Numba's reference counting: a kernel works on memory that its caller owns, cannot allocate
    (it will not compile), and handing a state of many arrays to another kernel costs nothing but their addresses.
    """
    compiled: Callable[P, R] = numba.njit(cache=True, nogil=True, error_model="numpy", _nrt=False)(function)  # type: ignore[call-overload]
    return compiled


def allocating_kernel(function: Callable[P, R]) -> Callable[P, R]:
    """The same for the few that hand out new arrays; they call kernels, never the other way round."""
    compiled: Callable[P, R] = numba.njit(cache=True, nogil=True, error_model="numpy")(function)
    return compiled
