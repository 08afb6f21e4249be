"""The inference protocol's bodies: what is taken, what is refused, and how the refusal names it."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.runtime import oip
from agents.wire.errors import ErrorCode, WireError
from tests.agents.runtime.node.parts import tiny_profile

PROFILE = tiny_profile()  # 1,000 rows, 8 actions, 32 tokens, 8 candidates


def tensor(name: str, values: list[Any], **changes: Any) -> dict[str, Any]:
    return {"name": name, "shape": [1, len(values)], "datatype": "INT64", "data": values, **changes}


def body(tokens: int = 3, scored: int = 2, **changes: Any) -> dict[str, Any]:
    """A good request; `changes` replace tensors by name, or (`None`) leave them out."""
    tensors = {
        "history_items": tensor("history_items", list(range(tokens))),
        "history_actions": tensor("history_actions", [1] * tokens),
        "history_ts": tensor("history_ts", list(range(100, 100 + tokens))),
        "candidates": tensor("candidates", list(range(scored))),
    }
    top = {key: changes.pop(key) for key in ("id", "parameters", "outputs") if key in changes}
    tensors.update(changes)
    return {"inputs": [value for value in tensors.values() if value is not None], **top}


def decode(content: dict[str, Any]) -> oip.RankInputs:
    return oip.decode_infer(json.dumps(content).encode(), PROFILE)


def refusal(content: dict[str, Any] | bytes) -> WireError:
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    with pytest.raises(WireError) as caught:
        oip.decode_infer(raw, PROFILE)
    assert caught.value.status == 400
    return caught.value


def test_a_good_request_becomes_arrays() -> None:
    inputs = decode(body(id="abc", parameters={"user_id": "u1", "history_version": 7}))
    assert (inputs.request_id, inputs.user_id, inputs.history_tokens, inputs.truncated) == ("abc", "u1", 3, False)
    np.testing.assert_array_equal(inputs.items, np.array([0, 1, 2], np.int64))
    np.testing.assert_array_equal(inputs.actions, np.array([1, 1, 1], np.int64))
    np.testing.assert_array_equal(inputs.timestamps, np.array([100, 101, 102], np.int64))
    np.testing.assert_array_equal(inputs.candidates, np.array([0, 1], np.int64))
    assert inputs.items.dtype == np.int64


def test_nested_data_is_the_same_as_flat_data() -> None:
    nested = decode(body(candidates=tensor("candidates", [5, 6], data=[[5, 6]])))
    np.testing.assert_array_equal(nested.candidates, np.array([5, 6], np.int64))


def test_members_and_parameters_nobody_knows_are_the_clients_own_business() -> None:
    request = body(parameters={"trace": True, "priority": 0})
    request["made_by"] = {"some": "client"}
    request["inputs"][0]["parameters"] = {"x": 1}
    assert decode(request).user_id is None


@pytest.mark.parametrize("user", [5, -1, 2**63, "x" * 128, "ü" * 64])
def test_user_ids_of_both_kinds_are_taken(user: str | int) -> None:
    assert decode(body(parameters={"user_id": user})).user_id == user


@pytest.mark.parametrize("user", ["", "x" * 129, "ü" * 65, 2**64, -(2**63) - 1, 1.5, True, ["u"], {"id": 1}])
def test_other_user_ids_are_refused_by_name(user: Any) -> None:
    assert "user_id" in refusal(body(parameters={"user_id": user})).detail


def test_a_user_id_of_null_is_no_user_id() -> None:
    assert decode(body(parameters={"user_id": None})).user_id is None


@pytest.mark.parametrize("name", oip.INPUTS)
def test_a_missing_tensor_is_named(name: str) -> None:
    error = refusal(body(**{name: None}))
    assert error.field == name
    assert "missing" in error.detail


@pytest.mark.parametrize("name", oip.INPUTS)
@pytest.mark.parametrize("datatype", ["INT32", "FP32", "int64", "BYTES", ""])
def test_a_wrong_datatype_is_named(name: str, datatype: str) -> None:
    error = refusal(body(**{name: tensor(name, [1, 2, 3], datatype=datatype)}))
    assert error.field == name
    assert "datatype" in error.detail


@pytest.mark.parametrize("name", oip.INPUTS)
@pytest.mark.parametrize("shape", [[3], [3, 1], [1, 3, 1], [], [0, 3], [-1, 3], [1, -3], [2, 3]])
def test_a_wrong_shape_is_named(name: str, shape: list[int]) -> None:
    error = refusal(body(**{name: tensor(name, [1, 2, 3], shape=shape)}))
    assert error.field == name
    assert "shape" in error.detail


@pytest.mark.parametrize("data", [[1, 2], [1, 2, 3, 4], [[1, 2]], []])
def test_a_shape_that_does_not_fit_the_data_is_refused(data: list[Any]) -> None:
    error = refusal(body(history_items=tensor("history_items", [1, 2, 3], data=data)))
    assert error.field == "history_items"
    assert "values" in error.detail


@pytest.mark.parametrize(
    ("data", "index"),
    [
        ([1, "2", 3], 1),
        ([1, 2.0, 3], 1),
        ([1, 2, None], 2),
        ([True, 2, 3], 0),
        ([1, [2], 3], 1),
        ([1, 2, 2**63], 2),
        ([-(2**63) - 1, 2, 3], 0),
        ([1, 10**400, 3], 1),
    ],
)
def test_an_entry_that_is_no_64_bit_integer_is_named_with_its_index(data: list[Any], index: int) -> None:
    error = refusal(body(history_items=tensor("history_items", [1, 2, 3], data=data)))
    assert error.field == "history_items"
    assert f"[{index}]" in error.detail


@pytest.mark.parametrize("data", ["123", 5, {"0": 1}, None, [[1], [2], [3]], [[[1, 2, 3]]]])
def test_data_that_is_no_list_of_numbers_is_refused(data: Any) -> None:
    assert refusal(body(history_items=tensor("history_items", [1, 2, 3], data=data))).field == "history_items"


def test_a_tensor_without_data_is_refused() -> None:
    request = body()
    del request["inputs"][0]["data"]
    assert refusal(request).field == "history_items"


@pytest.mark.parametrize(("name", "stop"), [("history_items", 1_000), ("candidates", 1_000), ("history_actions", 8)])
def test_ids_out_of_range_are_refused_with_tensor_and_index(name: str, stop: int) -> None:
    for value in (-1, stop, 2**63 - 1, -(2**63)):
        error = refusal(body(**{name: tensor(name, [0, value, value])}))
        assert error.field == name
        assert "index 1" in error.detail
        assert str(value) in error.detail
    assert decode(body(**{name: tensor(name, [0, stop - 1, 0])})).history_tokens == 3


def test_history_tensors_of_different_lengths_are_refused() -> None:
    for name in ("history_actions", "history_ts"):
        error = refusal(body(**{name: tensor(name, [1, 2])}))
        assert error.field == name
        assert "history_items has 3" in error.detail


def test_an_empty_history_is_refused() -> None:
    assert refusal(body(tokens=0)).field == "history_items"


def test_no_candidates_are_refused() -> None:
    assert refusal(body(scored=0)).field == "candidates"


def test_candidates_are_bounded() -> None:
    assert decode(body(scored=128)).candidates.shape == (128,)
    assert refusal(body(scored=129)).field == "candidates"


def test_a_history_up_to_the_maximum_is_used_whole() -> None:
    assert not decode(body(tokens=32)).truncated


@pytest.mark.parametrize(("tokens", "used"), [(33, 25), (40, 32), (41, 25), (127, 31), (128, 32)])
def test_a_longer_history_is_truncated_to_the_newest_in_quarter_steps(tokens: int, used: int) -> None:
    inputs = decode(body(tokens=tokens))
    assert inputs.truncated
    assert inputs.history_tokens == tokens
    for values, first in ((inputs.items, 0), (inputs.timestamps, 100)):
        np.testing.assert_array_equal(values, np.arange(first + tokens - used, first + tokens))


def test_a_history_above_four_times_the_maximum_is_refused() -> None:
    assert refusal(body(tokens=129)).field == "history_items"


def test_ids_are_checked_in_the_part_that_would_be_cut_off_too() -> None:
    items = [5_000] + [1] * 39
    assert "index 0" in refusal(body(tokens=40, history_items=tensor("history_items", items))).detail


def test_unexpected_and_repeated_inputs_are_refused() -> None:
    extra = body()
    extra["inputs"].append(tensor("ages", [1]))
    assert refusal(extra).field == "ages"
    twice = body()
    twice["inputs"].append(twice["inputs"][0])
    assert "twice" in refusal(twice).detail


def test_only_the_scores_can_be_asked_for() -> None:
    assert decode(body(outputs=[{"name": "scores"}])).history_tokens == 3
    assert refusal(body(outputs=[{"name": "ranks"}])).field == "ranks"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"hello",
        b"\x00\xff",
        b"[]",
        b"null",
        b"5",
        b'{"inputs": 5}',
        b'{"inputs": [5]}',
        b"{}",
        b"[" * 100_000,
        b'{"inputs": [{}]}',
    ],
)
def test_what_is_no_request_is_refused(raw: bytes) -> None:
    refusal(raw)


def test_nan_is_not_json() -> None:
    raw = json.dumps(body(candidates=tensor("candidates", [1, float("nan")]))).encode()
    assert "not JSON" in refusal(raw).detail


@pytest.mark.parametrize("request_id", [5, None, ["a"], "x" * 1_025])
def test_an_id_that_cannot_be_echoed_is_refused(request_id: Any) -> None:
    assert "id" in refusal(body(id=request_id)).detail


def test_the_answer_has_a_score_per_candidate_and_echoes_the_id() -> None:
    inputs = decode(body(id="abc"))
    answer = json.loads(oip.encode_result(inputs, np.array([0.5, -1.25], np.float32), "1").body)
    assert answer == {
        "model_name": "helm-ranker",
        "model_version": "1",
        "id": "abc",
        "outputs": [{"name": "scores", "shape": [1, 2], "datatype": "FP32", "data": [0.5, -1.25]}],
    }


def test_the_answer_says_that_a_history_was_truncated() -> None:
    answer = json.loads(oip.encode_result(decode(body(tokens=40)), np.zeros(2, np.float32), "1").body)
    assert "id" not in answer
    assert answer["parameters"] == {"history_truncated": True, "history_tokens_sent": 40, "history_tokens_used": 32}


def test_an_error_is_one_string() -> None:
    assert json.loads(oip.encode_error(oip.invalid("no", "x"))) == {"error": "no"}


def test_metadata_names_every_tensor() -> None:
    metadata = oip.model_metadata("1", "3")
    assert [tensor["name"] for tensor in metadata["inputs"]] == ["history_items", "history_actions", "history_ts", "candidates"]
    assert {tensor["datatype"] for tensor in metadata["inputs"]} == {"INT64"}
    assert metadata["outputs"] == [{"name": "scores", "datatype": "FP32", "shape": [1, -1]}]
    assert (metadata["versions"], metadata["parameters"]) == (["1"], {"feature_schema": "3"})
    assert set(oip.server_metadata()) == {"name", "version", "extensions"}


@pytest.mark.parametrize(("name", "version"), [("helm-Ranker", None), ("other", "1"), ("helm-ranker", "2"), ("helm-ranker", "01")])
def test_models_this_node_does_not_serve_are_unknown(name: str, version: str | None) -> None:
    with pytest.raises(WireError) as caught:
        oip.check_model(name, version, "1")
    assert caught.value.code is ErrorCode.UNKNOWN_MODEL


def test_the_served_model_is_known_with_and_without_its_version() -> None:
    oip.check_model("helm-ranker", None, "1")
    oip.check_model("helm-ranker", "1", "1")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["name", "shape", "datatype", "data", "inputs", "id"]), inner)
    ),
    max_leaves=20,
)


@settings(max_examples=200, deadline=None)
@given(JSON)
def test_any_json_is_taken_or_refused_but_never_a_surprise(content: Any) -> None:
    try:
        oip.decode_infer(json.dumps(content).encode(), PROFILE)
    except WireError as error:
        assert error.status == 400


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from(oip.INPUTS), JSON), st.sampled_from(["data", "shape", "datatype", "name"]))
def test_any_value_inside_a_tensor_is_taken_or_refused(values: dict[str, Any], member: str) -> None:
    request = body()
    for tensor_body in request["inputs"]:
        if tensor_body["name"] in values:
            tensor_body[member] = values[tensor_body["name"]]
    try:
        oip.decode_infer(json.dumps(request).encode(), PROFILE)
    except WireError as error:
        assert error.status == 400


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_refused(raw: bytes) -> None:
    with pytest.raises(WireError):
        oip.decode_infer(raw, PROFILE)
