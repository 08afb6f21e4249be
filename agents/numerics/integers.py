"""Integers on the wire: JSON text to an array without a Python object for each, and the first one out of range.

A request carries thousands of ids; as Python lists they would cost more than everything else the node decides.
"""

import numpy as np
from numpy.typing import NDArray

from agents.numerics.jit import kernel

DIGITS_MAX = 18  # so many cannot overflow 64 bits; longer ones are left to a slower reader
UNREAD = -1

_OPEN, _CLOSE, _COMMA, _MINUS, _ZERO, _NINE = ord("["), ord("]"), ord(","), ord("-"), ord("0"), ord("9")
_SPACE, _TAB, _LINE_FEED, _RETURN = ord(" "), ord("\t"), ord("\n"), ord("\r")


@kernel
def _blank(character: int) -> bool:
    return character in (_SPACE, _LINE_FEED, _RETURN, _TAB)


@kernel
def _after_blanks(text: NDArray[np.uint8], at: int) -> int:
    while at < text.shape[0] and _blank(text[at]):
        at += 1
    return at


@kernel
def parse_integers(text: NDArray[np.uint8], out: NDArray[np.int64]) -> int:
    """Read a flat JSON list of integers into `out`; returns how many, or `UNREAD` for anything else or more than fit."""
    at = _after_blanks(text, 0)
    if at >= text.shape[0] or text[at] != _OPEN:
        return UNREAD
    at = _after_blanks(text, at + 1)
    count = 0
    if at < text.shape[0] and text[at] == _CLOSE:
        return 0 if _after_blanks(text, at + 1) == text.shape[0] else UNREAD
    while at < text.shape[0]:
        negative = text[at] == _MINUS
        at += negative
        first = at
        value = np.int64(0)
        while at < text.shape[0] and _ZERO <= text[at] <= _NINE:
            value = value * 10 + (np.int64(text[at]) - _ZERO)  # wraps beyond the limit below, which then refuses
            at += 1
        digits = at - first
        if digits == 0 or digits > DIGITS_MAX or (digits > 1 and text[first] == _ZERO) or count == out.shape[0]:
            return UNREAD
        out[count] = -value if negative else value
        count += 1
        at = _after_blanks(text, at)
        if at >= text.shape[0]:
            return UNREAD
        if text[at] == _CLOSE:
            return count if _after_blanks(text, at + 1) == text.shape[0] else UNREAD
        if text[at] != _COMMA:
            return UNREAD
        at = _after_blanks(text, at + 1)
    return UNREAD


@kernel
def first_outside(values: NDArray[np.int64], stop: int) -> int:
    """Index of the first value that is not in 0 to `stop` - 1; -1 when all are."""
    for index in range(values.shape[0]):
        if values[index] < 0 or values[index] >= stop:
            return index
    return -1
