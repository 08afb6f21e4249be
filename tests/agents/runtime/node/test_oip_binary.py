"""The binary tensor extension, compression, and what a router reads of a request at a glance."""

import gzip
import json
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.runtime import compression, oip
from agents.wire.errors import WireError
from tests.agents.runtime.node.parts import tiny_profile
from tests.agents.runtime.node.test_oip import body

PROFILE = tiny_profile()


def packed(content: dict[str, Any], *names: str) -> tuple[bytes, int]:
    """A request with the named tensors moved behind the JSON head."""
    raw = b""
    for tensor in content["inputs"]:
        if tensor["name"] in names:
            data = np.array(tensor.pop("data"), "<i8").tobytes()
            tensor.setdefault("parameters", {"binary_data_size": len(data)})
            raw += data
    head = json.dumps(content).encode()
    return head + raw, len(head)


def refusal(content: bytes, json_bytes: int) -> WireError:
    with pytest.raises(WireError) as caught:
        oip.decode_infer(content, PROFILE, json_bytes)
    assert caught.value.status == 400
    return caught.value


@pytest.mark.parametrize("names", [oip.INPUTS, ("candidates",), ("history_items", "candidates")])
def test_binary_tensors_mean_the_same_as_json(names: tuple[str, ...]) -> None:
    plain = oip.decode_infer(json.dumps(body(5, 3)).encode(), PROFILE)
    binary = oip.decode_infer(packed(body(5, 3), *names)[0], PROFILE, packed(body(5, 3), *names)[1])
    for name in ("items", "actions", "timestamps", "candidates"):
        values = getattr(binary, name)
        np.testing.assert_array_equal(values, getattr(plain, name))
        assert values.flags.writeable
        assert values.flags.aligned


def test_a_head_without_binary_tensors_is_a_json_request() -> None:
    raw = json.dumps(body()).encode()
    assert oip.decode_infer(raw, PROFILE, len(raw)).history_tokens == 3


def test_binary_sizes_that_do_not_fit_are_refused_by_name() -> None:
    content, json_bytes = packed(body(), "candidates")
    assert "announces 16 bytes" in refusal(content[:-1], json_bytes).detail
    assert "belong to no input" in refusal(content + b"\0" * 8, json_bytes).detail
    assert "the body has" in refusal(content, len(content) + 1).detail
    odd = body()
    odd["inputs"][3]["parameters"] = {"binary_data_size": 15}
    content, json_bytes = packed(odd, "candidates")
    assert "multiple of 8" in refusal(content[:-1], json_bytes).detail
    short = body()
    short["inputs"][3]["shape"] = [1, 3]
    assert "but 2 values" in refusal(*packed(short, "candidates")).detail
    negative = body()
    negative["inputs"][3]["parameters"] = {"binary_data_size": -8}
    assert "binary_data_size" in refusal(*packed(negative, "candidates")).detail


def test_data_and_binary_data_for_one_tensor_are_refused() -> None:
    both = body()
    both["inputs"][3]["parameters"] = {"binary_data_size": 0}
    raw = json.dumps(both).encode()
    assert "both" in refusal(raw, len(raw)).detail


def test_ids_out_of_range_are_named_in_binary_too() -> None:
    wild = body()
    wild["inputs"][3]["data"] = [1, 1_000]
    assert "index 1: 1000" in refusal(*packed(wild, "candidates")).detail


@pytest.mark.parametrize("parameters", [{"classification": 3}, {"shared_memory_region": "r", "shared_memory_byte_size": 8}])
def test_output_forms_that_are_not_served_are_refused(parameters: dict[str, Any]) -> None:
    raw = json.dumps(body(outputs=[{"name": "scores", "parameters": parameters}])).encode()
    assert "not served here" in refusal(raw, len(raw)).detail


def test_inputs_in_shared_memory_are_refused() -> None:
    shared = body()
    del shared["inputs"][3]["data"]
    shared["inputs"][3]["parameters"] = {"shared_memory_region": "r", "shared_memory_byte_size": 16}
    raw = json.dumps(shared).encode()
    assert "shared memory" in refusal(raw, len(raw)).detail


@pytest.mark.parametrize("header", ["", "-1", "1.5", "ten", "٣", "9" * 20])
def test_a_head_length_that_is_no_number_is_refused(header: str) -> None:
    with pytest.raises(WireError):
        oip.json_bytes_of(header)


@pytest.mark.parametrize(
    ("top", "binary"),
    [
        ({}, False),
        ({"parameters": {"binary_data_output": True}}, True),
        ({"outputs": [{"name": "scores", "parameters": {"binary_data": True}}]}, True),
        ({"outputs": [{"name": "scores", "parameters": {"binary_data": False}}], "parameters": {"binary_data_output": True}}, False),
    ],
)
def test_scores_come_in_the_form_that_was_asked_for(top: dict[str, Any], binary: bool) -> None:
    inputs = oip.decode_infer(json.dumps(body(id="a", **top)).encode(), PROFILE)
    answer = oip.encode_result(inputs, np.array([0.5, -1.25], np.float32), "1")
    assert (answer.json_bytes is not None) is binary
    head = json.loads(answer.body[: answer.json_bytes])
    assert head["id"] == "a"
    (output,) = head["outputs"]
    if binary:
        assert output == {"name": "scores", "shape": [1, 2], "datatype": "FP32", "parameters": {"binary_data_size": 8}}
        np.testing.assert_array_equal(np.frombuffer(answer.body[answer.json_bytes :], "<f4"), [0.5, -1.25])
    else:
        assert output["data"] == [0.5, -1.25]


# --- at a glance


def test_a_glance_reads_user_and_lengths_from_every_form() -> None:
    content = body(5, 3, parameters={"user_id": "u1"})
    expected = oip.Peek("u1", 5, 3)
    plain = json.dumps(content).encode()
    assert oip.peek(plain) == expected
    assert oip.peek(plain, None, "identity") == expected
    assert oip.peek(gzip.compress(plain), None, "gzip") == expected
    binary, json_bytes = packed(content, *oip.INPUTS)
    assert oip.peek(binary, str(json_bytes)) == expected
    assert oip.peek(zlib.compress(binary), str(json_bytes), "deflate") == expected


def test_a_glance_at_what_cannot_be_read_is_none() -> None:
    plain = json.dumps(body()).encode()
    assert oip.peek(plain, "x") is None
    assert oip.peek(plain, None, "gzip") is None
    assert oip.peek(plain, None, "br") is None
    assert oip.peek(plain, str(len(plain) - 1)) is None
    bomb = gzip.compress(b'{"inputs": []' + b" " * (64 << 20))
    assert oip.peek(bomb, None, "gzip") is None


@pytest.mark.parametrize("inflated_bytes", [1 << 20, 12 << 20])
def test_a_glance_does_not_inflate_what_no_list_of_numbers_shrinks_to(inflated_bytes: int) -> None:
    plain = b" " * inflated_bytes + json.dumps(body()).encode()
    assert oip.peek(plain) is not None
    assert oip.peek(gzip.compress(plain), None, "gzip") is None
    assert oip.peek(gzip.compress(plain), str(len(plain)), "gzip") is None


@pytest.mark.parametrize(("length", "one_number"), [(4 * 16_384, False), (4 * 768, False), (4 * 768, True)])
def test_a_glance_reads_the_longest_histories_however_compressed(length: int, one_number: bool) -> None:
    numbers = [1_000_000_007] * length if one_number else np.random.default_rng(1).integers(1 << 40, size=length).tolist()
    inputs = [{"name": name, "shape": [1, length], "datatype": "INT64", "data": numbers} for name in oip.INPUTS[:3]]
    packed_body = gzip.compress(json.dumps({"inputs": inputs, "parameters": {"user_id": "u1"}}).encode())
    assert oip.peek(packed_body, None, "gzip") == oip.Peek("u1", length, 0)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=100), st.sampled_from([None, "0", "7", "90", "x"]), st.sampled_from([None, "gzip", "deflate", "br"]))
def test_a_glance_never_raises(raw: bytes, head: str | None, encoding: str | None) -> None:
    oip.peek(raw, head, encoding)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 250))
def test_any_bytes_with_any_head_length_are_refused(raw: bytes, json_bytes: int) -> None:
    with pytest.raises(WireError):
        oip.decode_infer(raw, PROFILE, json_bytes)


# --- compression


@pytest.mark.parametrize(
    ("header", "encoding"),
    [
        (None, None),
        ("", None),
        ("identity", None),
        ("br", None),
        ("gzip", "gzip"),
        ("GZIP", "gzip"),
        ("deflate", "deflate"),
        ("deflate, gzip", "gzip"),
        ("gzip;q=0.2, deflate;q=0.8", "deflate"),
        ("gzip;q=0, *", "deflate"),
        ("*", "gzip"),
        ("gzip;q=0", None),
        ("gzip;q=much", None),
    ],
)
def test_the_clients_weights_choose_the_encoding(header: str | None, encoding: str | None) -> None:
    assert compression.accepted_encoding(header) == encoding


def test_what_was_compressed_can_be_read_up_to_a_limit() -> None:
    content = bytes(range(256)) * 40
    for encoding, unpack in (("gzip", gzip.decompress), ("deflate", zlib.decompress)):
        small = compression.compressed(content, encoding)
        assert unpack(small) == content
        assert compression.decompressed(small, encoding, 300) == content[:300]
        assert compression.decompressed(small, encoding, 0) == b""


@pytest.mark.parametrize(
    ("data", "length"),
    [
        ('"data":[1,2,3]', 3),
        ('"data": [1, 2, 3]', 3),
        ('"data" : [ 1 ]', 3),
        ('"data":[[1,2],[3]]', 3),
        ('"data":["1]","2"]', 3),
        ('"data":[]', 3),
        ('"data":null', 3),
        ('"note":"\\"data\\":[","data":[1]', 3),
        ('"note":"data","data":[1]', 3),
    ],
)
def test_a_glance_sees_past_numbers_however_they_are_written(data: str, length: int) -> None:
    body = f'{{"inputs":[{{"name":"history_items",{data},"shape":[1,{length}]}}],"parameters":{{"user_id":"u"}}}}'
    assert oip.peek(body.encode()) == oip.Peek("u", length, 0)


@pytest.mark.parametrize(
    "body", [b'{"inputs":[{"data":[1,2', b'{"inputs":[{"data":[', b'{"data"', b'"data":[1]', b'{"inputs":[{"data":[1]]}']
)
def test_a_glance_at_what_was_cut_off_sees_nothing(body: bytes) -> None:
    assert oip.peek(body) is None
