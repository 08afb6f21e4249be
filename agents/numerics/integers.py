"""Integers on the wire: JSON text to an array without a Python object for each, and the first one out of range.

A request carries thousands of ids; as Python lists they would cost more than everything else the node decides.
"""

import numpy as np
from numpy.typing import NDArray

from agents.numerics.jit import kernel, load_word
from agents.numerics.words import WORD_BYTES, digits_at_start, number_at_start

DIGITS_MAX = 18  # so many cannot overflow 64 bits; longer ones are left to a slower reader
UNREAD = -1
LISTS_MAX = 8  # taken out of one text, below ten: what stands for each is a single digit
_KEY = np.frombuffer(b"data", np.uint8)  # before it, a list is content; anywhere else it is left where it is

_OPEN, _CLOSE, _COMMA, _MINUS, _ZERO, _NINE = ord("["), ord("]"), ord(","), ord("-"), ord("0"), ord("9")
_SPACE, _TAB, _LINE_FEED, _RETURN = ord(" "), ord("\t"), ord("\n"), ord("\r")
_QUOTE, _ESCAPE, _COLON = ord('"'), ord("\\"), ord(":")
_POWERS = 10 ** np.arange(WORD_BYTES + 1)


@kernel
def _blank(character: int) -> bool:
    return character in (_SPACE, _LINE_FEED, _RETURN, _TAB)


@kernel
def _after_blanks(text: NDArray[np.uint8], at: int) -> int:
    while at < text.shape[0] and _blank(text[at]):
        at += 1
    return at


@kernel
def _read_list(text: NDArray[np.uint8], at: int, out: NDArray[np.int64], count: int) -> tuple[int, int]:
    """Read the flat list of integers that opens at `at` into `out` from `count` on; returns (where it ends or `UNREAD`, count)."""
    at = _after_blanks(text, at + 1)
    if at < text.shape[0] and text[at] == _CLOSE:
        return at + 1, count
    while at < text.shape[0]:
        first = at
        value, at = _read_digits(text, at)
        negative = at == first and text[at] == _MINUS  # asked only where no digit stands, so that reading on does not wait for it
        if negative:
            first = at + 1
            value, at = _read_digits(text, first)
        digits = at - first
        if digits == 0 or digits > DIGITS_MAX or (digits > 1 and text[first] == _ZERO) or count == out.shape[0]:
            return UNREAD, count
        out[count] = -value if negative else value
        count += 1
        if at < text.shape[0] and text[at] != _COMMA:
            at = _after_blanks(text, at)
        if at >= text.shape[0]:
            return UNREAD, count
        if text[at] == _CLOSE:
            return at + 1, count
        if text[at] != _COMMA:
            return UNREAD, count
        at = _after_blanks(text, at + 1)
    return UNREAD, count


@kernel
def _read_digits(text: NDArray[np.uint8], at: int) -> tuple[int, int]:
    """The number that the digits from `at` on spell, and where they end; beyond `DIGITS_MAX` it has wrapped and means nothing."""
    value = np.int64(0)
    while at + WORD_BYTES <= text.shape[0]:
        word = load_word(text, at)
        digits = digits_at_start(word)
        if digits > 0:
            value = value * _POWERS[digits] + number_at_start(word, digits)
        at += digits
        if digits < WORD_BYTES:
            return value, at  # type: ignore[return-value]
    while at < text.shape[0] and _ZERO <= text[at] <= _NINE:
        value = value * 10 + (np.int64(text[at]) - _ZERO)
        at += 1
    return value, at  # type: ignore[return-value]


@kernel
def parse_integers(text: NDArray[np.uint8], out: NDArray[np.int64]) -> int:
    """Read a flat JSON list of integers into `out`; returns how many, or `UNREAD` for anything else or more than fit."""
    at = _after_blanks(text, 0)
    if at >= text.shape[0] or text[at] != _OPEN:
        return UNREAD
    end, count = _read_list(text, at, out, 0)
    return count if end != UNREAD and _after_blanks(text, end) == text.shape[0] else UNREAD


@kernel
def take_lists(text: NDArray[np.uint8], rest: NDArray[np.uint8], values: NDArray[np.int64], ends: NDArray[np.int64]) -> tuple[int, int]:
    """Take every flat list of integers behind a key `data` out of a JSON text; returns (bytes of the rest, lists taken).

    List k goes to `values` up to `ends[k]`; in `rest`, which has room for the text and a byte a list, `[k]` stands for
    it. No list that was left can look like that, so nobody can forge one. `UNREAD` lists for a text with escapes or with more than
    fits: whoever reads it then must read all of it. What is no JSON stays no JSON.
    """
    at, written, lists, count = 0, 0, 0, 0
    while at < text.shape[0]:
        character = text[at]
        rest[written] = character
        at, written = at + 1, written + 1
        if character != _QUOTE:
            continue
        first = at
        while at < text.shape[0] and text[at] != _QUOTE:
            if text[at] == _ESCAPE:
                return 0, UNREAD
            rest[written] = text[at]
            at, written = at + 1, written + 1
        start = _list_behind_key(text, first, at)
        if at < text.shape[0]:
            rest[written] = _QUOTE
            at, written = at + 1, written + 1
        if start == UNREAD:
            continue
        end, filled = _read_list(text, start, values, count)
        if end == UNREAD and filled < values.shape[0]:
            continue
        if end == UNREAD or lists == ends.shape[0]:
            return 0, UNREAD
        rest[written], rest[written + 1], rest[written + 2], rest[written + 3] = _COLON, _OPEN, _ZERO + lists, _CLOSE
        ends[lists] = count = filled
        at, written, lists = end, written + 4, lists + 1
    return written, lists


@kernel
def _list_behind_key(text: NDArray[np.uint8], first: int, end: int) -> int:
    """Where a list opens behind the key `data` that stands from `first` to `end`; `UNREAD` for any other string."""
    if end - first != _KEY.shape[0]:
        return UNREAD
    for position in range(_KEY.shape[0]):
        if text[first + position] != _KEY[position]:
            return UNREAD
    colon = _after_blanks(text, end + 1)
    if colon >= text.shape[0] or text[colon] != _COLON:
        return UNREAD
    start = _after_blanks(text, colon + 1)
    return start if start < text.shape[0] and text[start] == _OPEN else UNREAD


@kernel
def first_outside(values: NDArray[np.int64], stop: int) -> int:
    """Index of the first value that is not in 0 to `stop` - 1; -1 when all are."""
    for index in range(values.shape[0]):
        if values[index] < 0 or values[index] >= stop:
            return index
    return -1
