import json

import numpy as np
import pytest

from agents.profiles import load_profile
from agents.runtime.load.client import check_answer, encode_request
from agents.runtime.oip import decode_infer, encode_result
from agents.workloads.demo import synthetic_workload

GOOD = {"outputs": [{"name": "scores", "shape": [1, 3], "datatype": "FP32", "data": [0.1, -2.0, 3e-5]}]}


def body(**changes: object) -> bytes:
    return json.dumps({"outputs": [{**GOOD["outputs"][0], **changes}]}).encode()


def test_the_nodes_own_decoder_reads_back_what_was_sent() -> None:
    request = next(synthetic_workload("trend", 5).requests())
    decoded = decode_infer(encode_request(request), load_profile("cpu-demo"))
    assert decoded.user_id == request.user
    for sent, got in zip(request[2:], (decoded.items, decoded.actions, decoded.timestamps, decoded.candidates), strict=True):
        assert np.array_equal(sent, got)
    assert not decoded.truncated


def test_the_nodes_own_answer_is_a_good_one() -> None:
    request = next(synthetic_workload("steady", 5).requests())
    inputs = decode_infer(encode_request(request), load_profile("cpu-demo"))
    scores = np.linspace(-1.0, 1.0, request.candidates.size, dtype=np.float32)
    assert check_answer(200, {}, encode_result(inputs, scores, "1").body, request.candidates.size).failure == ""


def test_an_answer_says_which_node_and_whether_the_prefix_was_there() -> None:
    answer = check_answer(200, {"x-helm-node": "node-2", "x-helm-kv": "miss;reason=cold"}, body(), 3)
    assert answer == ("", False, "node-2", "miss")
    assert check_answer(200, {"x-helm-kv": "partial"}, body(), 3).kv == "partial"


def test_data_nested_as_the_shape_says_is_good_too() -> None:
    assert check_answer(200, {}, body(data=[[0.1, 0.2, 0.3]]), 3).failure == ""


@pytest.mark.parametrize(
    ("status", "content", "failure"),
    [
        (500, b"{}", "status 500"),
        (503, b"{}", "status 503"),
        (400, b"", "status 400"),
        (200, b"", "answer is not JSON of the protocol"),
        (200, b"<html>", "answer is not JSON of the protocol"),
        (200, b'{"outputs": [{"name": "scores", "data": ["a"]}]}', "answer is not JSON of the protocol"),
        (200, b'{"outputs": [{"name": "scores", "data": [NaN, 1, 2]}]}', "answer is not JSON of the protocol"),
        (200, b'{"outputs": [{"name": "scores", "data": [1e999, 1, 2]}]}', "answer is not JSON of the protocol"),
        (200, b'{"outputs": [{"name": "scores", "data": [null, 1, 2]}]}', "score not finite"),
        (200, b'{"outputs": [{"name": "scores", "data": [[1, 2, null]]}]}', "score not finite"),
        (200, b'{"outputs": [{"name": "scores", "data": [1, 2]}]}', "wrong number of scores"),
        (200, b'{"outputs": [{"name": "scores", "data": []}]}', "wrong number of scores"),
        (200, b'{"outputs": [{"name": "scores", "data": [[1, 2, 3], [4, 5, 6]]}]}', "wrong number of scores"),
        (200, b'{"outputs": [{"name": "other", "data": [1, 2, 3]}]}', "answer without scores"),
        (200, b'{"outputs": []}', "answer without scores"),
    ],
)
def test_every_answer_that_is_none_has_its_reason(status: int, content: bytes, failure: str) -> None:
    answer = check_answer(status, {}, content, 3)
    assert (answer.failure, answer.shed) == (failure, False)


def test_too_many_requests_is_shedding_and_no_failure() -> None:
    answer = check_answer(429, {}, b'{"error": "queue is full"}', 3)
    assert (answer.failure, answer.shed) == ("", True)
