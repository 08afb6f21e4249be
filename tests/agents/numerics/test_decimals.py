"""Writing scores as JSON: any reader gets the very float32 number back."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.numerics.decimals import BYTES_MAX, write_decimals


def written(values: list[float]) -> str:
    out = np.zeros(BYTES_MAX * len(values) + 2, np.uint8)
    return out[: write_decimals(np.array(values, np.float32), out)].tobytes().decode()


@settings(max_examples=500, deadline=None)
@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=4))
def test_every_number_is_read_back_as_the_same_float32(values: list[float]) -> None:
    back = np.array(json.loads(written(values)), np.float32)
    np.testing.assert_array_equal(back.view(np.uint32), np.array(values, np.float32).view(np.uint32))


@pytest.mark.parametrize("exponent", range(-149, 128))
def test_powers_of_two_and_their_neighbours_come_back(exponent: int) -> None:
    value = np.float32(2.0**exponent)
    values = np.array([value, np.nextafter(value, np.float32(0)), -value], np.float32)
    np.testing.assert_array_equal(np.array(json.loads(written(values.tolist())), np.float32), values)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.0"),
        (-0.0, "-0.0"),
        (1.0, "1.0"),
        (0.5, "0.5"),
        (-1.25, "-1.25"),
        (0.1, "0.100000001"),
        (123456789.0, "123456792.0"),
        (1e9, "1.0e09"),
        (1.25e-5, "0.0000124999997"),
        (1e-5, "9.99999975e-06"),
        (-3.4028235e38, "-3.40282347e38"),
        (1e-45, "1.40129846e-45"),
        (np.nan, "null"),
        (np.inf, "null"),
    ],
)
def test_numbers_look_as_people_write_them(value: float, text: str) -> None:
    assert written([value]) == f"[{text}]"


def test_a_list_has_commas_between_and_an_empty_one_has_nothing() -> None:
    assert written([1.0, -2.0, 0.25]) == "[1.0,-2.0,0.25]"
    assert written([]) == "[]"
