"""Scores on the wire: float32 numbers to JSON text without a Python object for each.

Nine significant digits tell any two float32 numbers apart, so a reader that rounds to float32 gets the very number.
"""

import math

import numpy as np
from numpy.typing import NDArray

from agents.numerics.jit import kernel, store_word
from agents.numerics.words import ZEROS, eight_digits, zeros_at_end

DIGITS = 9
BYTES_MAX = 17  # of one number and the comma behind it: -1.23456789e-38,
_POSITIONAL_MIN, _POSITIONAL_MAX = -5, DIGITS  # decimal exponents written without an `e`
_POWERS_MAX = 60  # float32 goes from 1e-45 to 4e38, and nine digits further
_POWERS = 10.0 ** np.arange(-_POWERS_MAX, _POWERS_MAX + 1)
_LOG10_OF_2 = math.log10(2.0)
_LIMIT = 10**DIGITS
_TEN_TO_8 = np.uint32(10**8)
_MANTISSA_BITS, _EXPONENT_BIAS = 52, 1023  # of a float64

_OPEN, _CLOSE, _COMMA, _MINUS, _POINT, _ZERO, _EXPONENT = (ord(character) for character in "[],-.0e")
_NULL = np.frombuffer(b"null", np.uint8)


@kernel
def write_decimals(values: NDArray[np.float32], out: NDArray[np.uint8]) -> int:
    """Write a JSON list of `values` to `out`, which has `BYTES_MAX` for each and two; returns the bytes written.

    What is not finite has no number in JSON and becomes null.
    """
    out[0] = _OPEN
    written = 1
    for index in range(values.shape[0]):
        if index > 0:
            out[written] = _COMMA
            written += 1
        written = _write(float(values[index]), out, written)
    out[written] = _CLOSE
    return written + 1


@kernel
def all_finite(values: NDArray[np.float32]) -> bool:
    """Whether all of them are numbers."""
    finite = True
    for index in range(values.shape[0]):
        finite &= math.isfinite(values[index])
    return finite


@kernel
def _write(value: float, out: NDArray[np.uint8], at: int) -> int:
    if not math.isfinite(value):
        for position in range(_NULL.shape[0]):
            out[at + position] = _NULL[position]
        return at + int(_NULL.shape[0])
    if math.copysign(1.0, value) < 0.0:
        out[at] = _MINUS
        at += 1
    digits, exponent = _scaled(abs(value))
    if _POSITIONAL_MIN <= exponent < 0:
        return _write_fraction(digits, exponent, out, at)
    if 0 <= exponent < _POSITIONAL_MAX:
        return _write_with_point(digits, exponent + 1, out, at)
    return _write_exponent(exponent, out, _write_with_point(digits, 1, out, at))


@kernel
def _scaled(value: float) -> tuple[np.uint32, int]:
    """Nine digits as an integer, and the decimal exponent of the first of them; zero is all zeros."""
    if value == 0.0:
        return np.uint32(0), 0
    binary = (np.float64(value).view(np.int64) >> _MANTISSA_BITS) - _EXPONENT_BIAS
    exponent = math.floor(binary * _LOG10_OF_2)  # one too small at times
    if value >= _POWERS[exponent + 1 + _POWERS_MAX]:
        exponent += 1
    digits = np.int64(value * _POWERS[DIGITS - 1 - exponent + _POWERS_MAX] + 0.5)
    if digits >= _LIMIT:
        return np.uint32(_LIMIT // 10), exponent + 1
    return np.uint32(digits), exponent


@kernel
def _write_with_point(digits: np.uint32, whole: int, out: NDArray[np.uint8], at: int) -> int:
    """`whole` digits, the point, and what follows without trailing zeros but for the first."""
    first, rest = digits // _TEN_TO_8, eight_digits(digits % _TEN_TO_8)
    text = rest + ZEROS
    out[at] = np.uint32(_ZERO) + first
    store_word(out, at + 1, text)
    if whole == DIGITS:
        out[at + whole], out[at + whole + 1] = _POINT, _ZERO
        return at + whole + 2
    store_word(out, at + whole + 1, text >> np.uint64(8 * (whole - 1)))  # the digits behind the point again, one further
    out[at + whole] = _POINT
    return at + whole + 1 + max(1, DIGITS - whole - zeros_at_end(rest))


@kernel
def _write_fraction(digits: np.uint32, exponent: int, out: NDArray[np.uint8], at: int) -> int:
    """A number below one: zeros, then the digits without trailing zeros."""
    store_word(out, at, ZEROS)
    out[at + 1] = _POINT
    at += 1 - exponent
    rest = eight_digits(digits % _TEN_TO_8)
    out[at] = np.uint32(_ZERO) + digits // _TEN_TO_8
    store_word(out, at + 1, rest + ZEROS)
    return at + DIGITS - zeros_at_end(rest)


@kernel
def _write_exponent(exponent: int, out: NDArray[np.uint8], at: int) -> int:
    out[at] = _EXPONENT
    at += 1
    if exponent < 0:
        out[at] = _MINUS
        at += 1
        exponent = -exponent
    out[at], out[at + 1] = _ZERO + exponent // 10, _ZERO + exponent % 10
    return at + 2
