"""Reading integers from JSON text: the same as a JSON reader, or nothing at all."""

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.numerics.integers import LISTS_MAX, UNREAD, first_outside, parse_integers, take_lists


def parse(text: bytes, room: int = 8) -> list[int] | None:
    out = np.full(room, 7, np.int64)
    count = parse_integers(np.frombuffer(text, np.uint8), out)
    return None if count == UNREAD else out[:count].tolist()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(-(10**18) + 1, 10**18 - 1), max_size=8), st.sampled_from([None, 1]), st.sampled_from([",", " ,\t\r\n "]))
def test_every_list_of_integers_is_read_as_a_json_reader_reads_it(values: list[int], indent: int | None, comma: str) -> None:
    assert parse(json.dumps(values, indent=indent, separators=(comma, ": ")).encode()) == values


@pytest.mark.parametrize("text", ["[0]", "[-0]", "[-5]", " [ 1 , 2 ] ", "[]", "[ ]"])
def test_unusual_spellings_are_json_too(text: str) -> None:
    assert parse(text.encode()) == json.loads(text)


UNFINISHED = ["", "[", "]", "[1", "[1,", "[1,]", "[,1]", "[1 2]", "[1]]", "[1]x"]
NO_INTEGERS = ["[-]", "[--1]", "[+1]", "[01]", "[1.0]", "[1e3]", "[null]", "[true]", '["1"]', "[[1]]", "{}", "5", "[\u00a01]"]
TOO_MUCH = ["[1000000000000000000]", "[9223372036854775808]", "[1,2,3,4,5,6,7,8,9]"]


@pytest.mark.parametrize("text", [*UNFINISHED, *NO_INTEGERS, *TOO_MUCH])
def test_everything_else_is_left_to_a_slower_reader(text: str) -> None:
    assert parse(text.encode()) is None


@settings(max_examples=300, deadline=None)
@given(st.text("[]0123456789-, x", max_size=12))
def test_what_is_read_is_what_json_says(text: str) -> None:
    read = parse(text.encode())
    if read is not None:
        assert read == json.loads(text)


def take(text: str, room: int = 8) -> tuple[str, list[list[int]]] | None:
    """What is left of a text and the lists taken out of it; `None` when it must be read whole."""
    content = text.encode()
    rest, values, ends = np.empty(len(content) + LISTS_MAX, np.uint8), np.empty(room, np.int64), np.empty(LISTS_MAX, np.int64)
    size, count = take_lists(np.frombuffer(content, np.uint8), rest, values, ends)
    if count == UNREAD:
        return None
    stops = [0, *ends[:count].tolist()]
    return rest[:size].tobytes().decode(), [values[start:stop].tolist() for start, stop in pairwise(stops)]


@pytest.mark.parametrize(
    ("text", "rest", "lists"),
    [
        ('{"data":[1,-2], "shape":[1,2]}', '{"data":[0], "shape":[1,2]}', [[1, -2]]),
        ('{"data" : [ ]}{"data":[0]}', '{"data":[0]}{"data":[1]}', [[], [0]]),
        ('{"data":[[1]], "other":["data",[2]]}', '{"data":[[1]], "other":["data",[2]]}', []),
        ('{"data":[1.5], "data":[01], "data":"[7]"}', '{"data":[1.5], "data":[01], "data":"[7]"}', []),
        ('{"data":[1', '{"data":[1', []),
        ('"data', '"data', []),
    ],
)
def test_lists_of_integers_are_taken_out_of_a_text_and_all_else_is_left(text: str, rest: str, lists: list[list[int]]) -> None:
    assert take(text) == (rest, lists)


@pytest.mark.parametrize("text", ['{"d\\u0061ta":[0]}', '{"data":[1,2,3,4,5,6,7,8,9]}', '"data":[],' * (LISTS_MAX + 1)])
def test_a_text_with_escapes_or_with_more_than_fits_must_be_read_whole(text: str) -> None:
    assert take(text) is None


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(['"data"', ":", "[", "]", "0", "-12", ",", " ", "{", "}", '"', "1.5"]), max_size=14).map("".join))
def test_what_is_taken_out_and_put_back_says_the_same(text: str) -> None:
    taken = take(text)
    if taken is None:
        return
    rest, lists = taken
    for mark, values in enumerate(lists):
        rest = rest.replace(f'"data":[{mark}]', f'"data" :{values}', 1)
    assert readable(rest) == readable(text)


def readable(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return None


@pytest.mark.parametrize(("values", "index"), [([], -1), ([0, 9], -1), ([0, 10], 1), ([-1, 10], 0), ([2**63 - 1], 0)])
def test_the_first_value_out_of_range_is_found(values: list[int], index: int) -> None:
    assert first_outside(np.array(values, np.int64), 10) == index
