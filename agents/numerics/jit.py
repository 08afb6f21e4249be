"""The only door to Numba: one typed wrapper, so that every kernel is compiled the same way.

Kernels are cached on disk (NUMBA_CACHE_DIR, set by the launcher to the state folder) so that
a second start compiles nothing, and release the GIL so that a tick never blocks the serving loop.
"""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numba
import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import cgutils, types
from numba.extending import intrinsic
from numpy.typing import NDArray

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


def bound(compiled: Callable[P, R], *like: P.args, **nothing: P.kwargs) -> Callable[P, R]:
    """A kernel for arguments of the types of `like`, which a call no longer looks at.

    For calls from Python, thousands a second: to find the types of a state of ten record arrays takes three times as
    long as the picks and lessons themselves. The caller vouches for the types of all later arguments.
    """
    signature = tuple(numba.typeof(argument) for argument in like)  # type: ignore[no-untyped-call]
    compiled.compile(signature)  # type: ignore[attr-defined]
    entry: Callable[P, R] = compiled.overloads[signature].entry_point  # type: ignore[attr-defined]
    return entry


def bound_by_first_call(compiled: Callable[P, R]) -> Callable[P, R]:
    """`bound` to the types of whatever it is called with first; until then it costs nothing, not even a look at the kernel."""
    entry: Callable[P, R] | None = None

    def call(*arguments: P.args, **nothing: P.kwargs) -> R:
        nonlocal entry
        if entry is None:
            entry = bound(compiled, *arguments, **nothing)
        return entry(*arguments, **nothing)

    return call


@intrinsic
def _prefetch(_typing: Any, array: types.Array, index: types.Integer) -> Any:

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kind = signature.args[0]
        view = context.make_array(kind)(context, builder, values[0])
        position = context.cast(builder, values[1], signature.args[1], types.intp)
        address = cgutils.get_item_pointer(context, builder, kind, view, [position], wraparound=False)  # type: ignore[no-untyped-call]
        byte = ir.IntType(8).as_pointer()
        number = ir.IntType(32)
        function = cgutils.get_or_insert_function(  # type: ignore[no-untyped-call]
            builder.module, ir.FunctionType(ir.VoidType(), [byte, number, number, number]), "llvm.prefetch.p0i8"
        )
        read, keep_close, data = number(0), number(3), number(1)
        builder.call(function, [builder.bitcast(address, byte), read, keep_close, data])
        return context.get_dummy_value()

    return types.none(array, index), generate


# `prefetch(array, index)` in a kernel fetches that element's cache line while other work goes on. For one-dimensional
# arrays and indexes inside them. Worth it where a branch that cannot be predicted would otherwise wait for memory.
prefetch: Callable[[NDArray[Any], int], None] = _prefetch  # type: ignore[assignment]


@intrinsic
def _load_word(_typing: Any, array: types.Array, index: types.Integer) -> Any:

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.load(_word_address(context, builder, signature, values), align=1)

    return types.uint64(array, index), generate


@intrinsic
def _store_word(_typing: Any, array: types.Array, index: types.Integer, word: types.Integer) -> Any:

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        builder.store(values[2], _word_address(context, builder, signature, values), align=1)
        return context.get_dummy_value()

    return types.none(array, index, types.uint64), generate


def _word_address(context: Any, builder: Any, signature: Any, values: Any) -> Any:
    kind = signature.args[0]
    view = context.make_array(kind)(context, builder, values[0])
    position = context.cast(builder, values[1], signature.args[1], types.intp)
    address = cgutils.get_item_pointer(context, builder, kind, view, [position], wraparound=False)  # type: ignore[no-untyped-call]
    return builder.bitcast(address, ir.IntType(64).as_pointer())


@intrinsic
def _trailing_zeros(_typing: Any, word: types.Integer) -> Any:

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.cttz(values[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), generate


@intrinsic
def _leading_zeros(_typing: Any, word: types.Integer) -> Any:

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.ctlz(values[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), generate


# In kernels, of one-dimensional arrays of bytes: eight bytes from an index on as one number, the first one lowest. The caller
# sees to it that all eight are inside. And the zero bits below the lowest and above the highest bit of a word; 64 when it is zero.
load_word: Callable[[NDArray[Any], int], np.uint64] = _load_word  # type: ignore[assignment]
store_word: Callable[[NDArray[Any], int, np.uint64], None] = _store_word  # type: ignore[assignment]
trailing_zeros: Callable[[np.uint64], int] = _trailing_zeros  # type: ignore[assignment]
leading_zeros: Callable[[np.uint64], int] = _leading_zeros  # type: ignore[assignment]


def inlined_kernel(function: Callable[P, R]) -> Callable[P, R]:
    """A kernel whose body is put where it is called: for parts of one large kernel over one large state.

    Numba spends about a second on every function that takes a state of a hundred arrays, however short it is.
    """
    compiled: Callable[P, R] = numba.njit(  # type: ignore[call-overload]
        cache=True, nogil=True, error_model="numpy", _nrt=False, inline="always"
    )(function)
    return compiled
