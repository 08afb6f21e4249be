"""Eight characters of text at once, as one 64-bit number whose lowest byte is the first character.

Digits are compared and converted side by side in the eight bytes of a register, so that neither a loop nor a branch depends on
how many there are: a processor cannot guess that, and guessing wrong costs more than the conversion.
"""

import numpy as np

from agents.numerics.jit import kernel, leading_zeros, trailing_zeros

WORD_BYTES = 8
ZEROS = np.uint64(0x3030303030303030)  # the character 0, eight times
_ABOVE_NINE = np.uint64(0x7676767676767676)  # lifts a byte above 9 over 127
_TOP_BITS = np.uint64(0x8080808080808080)
_BYTES, _PAIRS = np.uint64(0x00FF00FF00FF00FF), np.uint64(0x0000FFFF0000FFFF)
_TENS, _HUNDREDS = np.uint64(0x000F000F000F000F), np.uint64(0x0000007F0000007F)
_8, _10, _16, _20, _32, _64 = (np.uint64(bits) for bits in (8, 10, 16, 20, 32, 64))
_TEN, _HUNDRED, _TEN_THOUSAND = np.uint64(10), np.uint64(100), np.uint64(10_000)
_JOIN_DIGITS, _JOIN_PAIRS, _JOIN_FOURS = np.uint64(1 + (10 << 8)), np.uint64(1 + (100 << 16)), np.uint64(1 + (10_000 << 32))
_BY_TEN, _BY_HUNDRED = np.uint64(103), np.uint64(10_486)  # 103 / 2**10 and 10486 / 2**20: exact for what they divide


@kernel
def digits_at_start(word: np.uint64) -> int:
    """How many of the eight characters are digits, up to the first that is none. What follows that one does not matter."""
    values = word ^ ZEROS
    others = ((values + _ABOVE_NINE) | values) & _TOP_BITS
    return int(trailing_zeros(others) >> 3)


@kernel
def number_at_start(word: np.uint64, digits: int) -> int:
    """The number that the first 1 to 8 characters, all digits, spell."""
    values = (word ^ ZEROS) << (_64 - _8 * np.uint64(digits))
    values = ((values * _JOIN_DIGITS) >> _8) & _BYTES
    values = ((values * _JOIN_PAIRS) >> _16) & _PAIRS
    return np.int64((values * _JOIN_FOURS) >> _32)  # type: ignore[return-value]  # int() would stay unsigned in Numba


@kernel
def eight_digits(number: np.uint32) -> np.uint64:
    """The digits of a number below 10 ** 8, one a byte, as values: `ZEROS` added they are characters."""
    upper, lower = np.uint64(number) // _TEN_THOUSAND, np.uint64(number) % _TEN_THOUSAND
    fours = upper | (lower << _32)
    hundreds = ((fours * _BY_HUNDRED) >> _20) & _HUNDREDS
    twos = hundreds | ((fours - hundreds * _HUNDRED) << _16)
    tens = ((twos * _BY_TEN) >> _10) & _TENS
    return tens | ((twos - tens * _TEN) << _8)


@kernel
def zeros_at_end(digits: np.uint64) -> int:
    """How many of eight digits, one a byte as values, are zeros behind the last that is none."""
    return int(leading_zeros(digits) >> 3)
