"""Answers of the inference protocol: scores as JSON numbers or raw bytes, and the error object."""

from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from agents.numerics.decimals import BYTES_MAX, write_decimals
from agents.runtime.oip.metadata import MODEL_NAME, OUTPUT
from agents.runtime.oip.request import RankInputs
from agents.wire.errors import WireError

_ENCODER = msgspec.json.Encoder()


class Answer(NamedTuple):
    """A body; `json_bytes` is the length of its JSON head where raw scores follow, else `None`."""

    body: bytes
    json_bytes: int | None = None


def encode_result(inputs: RankInputs, scores: NDArray[np.float32], model_version: str) -> Answer:
    """Body of a successful answer, in the form the client asked for; it says so when the history was truncated."""
    output: dict[str, Any] = {"name": OUTPUT, "shape": [1, scores.shape[0]], "datatype": "FP32"}
    if not inputs.binary_scores:
        text = np.empty(BYTES_MAX * scores.shape[0] + 2, np.uint8)
        output["data"] = msgspec.Raw(text[: write_decimals(scores, text)].data)
        return Answer(_ENCODER.encode(_head(inputs, output, model_version)))
    raw = scores.astype("<f4", copy=False).tobytes()
    output["parameters"] = {"binary_data_size": len(raw)}
    head = _ENCODER.encode(_head(inputs, output, model_version))
    return Answer(head + raw, len(head))


def _head(inputs: RankInputs, output: dict[str, Any], model_version: str) -> dict[str, Any]:
    head: dict[str, Any] = {"model_name": MODEL_NAME, "model_version": model_version}
    if inputs.request_id:
        head["id"] = inputs.request_id
    if inputs.truncated:
        head["parameters"] = {
            "history_truncated": True,
            "history_tokens_sent": inputs.history_tokens,
            "history_tokens_used": inputs.items.shape[0],
        }
    head["outputs"] = [output]
    return head


def encode_error(error: WireError) -> bytes:
    """The protocol's error object: one string."""
    return _ENCODER.encode({"error": error.detail})
