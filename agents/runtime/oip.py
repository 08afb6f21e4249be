"""Open Inference Protocol v2: bytes to checked arrays, results to bytes. Knows no sockets.

Every refusal is a `WireError` whose sentence names the tensor and, where one entry is to blame,
its index. Tensor contents come in through `_integers`; a further encoding of tensors belongs there.
"""

from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from agents.numerics.prefix import window_start
from agents.profiles import Profile
from agents.wire.errors import ErrorCode, WireError
from agents.wire.ids import USER_ID_BYTES_MAX

SERVER_NAME = "helm"
SERVER_VERSION = "0.1.0"
MODEL_NAME = "helm-ranker"
EXTENSIONS = ["helm_residency"]
HISTORY_INPUTS = ("history_items", "history_actions", "history_ts")
INPUTS = (*HISTORY_INPUTS, "candidates")
OUTPUT = "scores"
HISTORY_MULTIPLE_MAX = 4  # longer ones are a client's mistake, not a long history
CANDIDATES_MULTIPLE_MAX = 16  # of the profile's usual number: more would hold up everyone else's requests
REQUEST_ID_BYTES_MAX = 1_024  # echoed, so it must not be a way to have megabytes sent back

Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class InferInput(msgspec.Struct, frozen=True):
    """One input tensor as it stands in the request; `data` is decoded once its type is known."""

    name: str
    shape: list[int]
    datatype: str
    data: msgspec.Raw = msgspec.Raw(b"")


class InferOutput(msgspec.Struct, frozen=True):
    """One output the client asks for."""

    name: str


class InferParameters(msgspec.Struct, frozen=True):
    """Request parameters HELM reads; others are the client's own business."""

    user_id: str | int | None = None
    history_version: str | int | None = None


class InferBody(msgspec.Struct, frozen=True):
    """Body of an inference request."""

    inputs: list[InferInput]
    id: str = ""
    parameters: InferParameters = InferParameters()
    outputs: list[InferOutput] = []


class RankInputs(NamedTuple):
    """A checked request. `history_tokens` is what the client sent, the arrays are what is used of it."""

    request_id: str
    user_id: str | int | None
    items: NDArray[np.int64]
    actions: NDArray[np.int64]
    timestamps: NDArray[np.int64]
    candidates: NDArray[np.int64]
    history_tokens: int

    @property
    def truncated(self) -> bool:
        """Whether only the newest part of the history is used."""
        return len(self.items) < self.history_tokens


_BODY = msgspec.json.Decoder(InferBody)
_FLAT = msgspec.json.Decoder(list[Int64])
_NESTED = msgspec.json.Decoder(list[list[Int64]])
_ENCODER = msgspec.json.Encoder()


def decode_infer(body: bytes, profile: Profile) -> RankInputs:
    """A request's arrays, within the limits of `profile`; `WireError` names what is wrong."""
    request = _decode_body(body)
    _check_id(request.id)
    _check_parameters(request.parameters)
    _check_outputs(request.outputs)
    tensors = _tensors(request.inputs)
    items, actions, timestamps = (tensors[name] for name in HISTORY_INPUTS)
    candidates = tensors["candidates"]
    tokens = _check_lengths(tensors, profile)
    _check_range("history_items", items, profile.rows)
    _check_range("history_actions", actions, profile.model.actions)
    _check_range("candidates", candidates, profile.rows)
    start = window_start(tokens, profile.model.tokens_max)
    return RankInputs(request.id, request.parameters.user_id, items[start:], actions[start:], timestamps[start:], candidates, tokens)


def _decode_body(body: bytes) -> InferBody:
    try:
        return _BODY.decode(body)
    except msgspec.ValidationError as error:
        raise invalid(f"request: {error}") from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise invalid(f"request is not JSON: {error}") from error


def _check_id(request_id: str) -> None:
    if len(request_id.encode()) > REQUEST_ID_BYTES_MAX:
        raise invalid(f"id is longer than {REQUEST_ID_BYTES_MAX} bytes", "id")


def _check_parameters(parameters: InferParameters) -> None:
    for name in ("user_id", "history_version"):
        value = getattr(parameters, name)
        if isinstance(value, str) and not 0 < len(value.encode()) <= USER_ID_BYTES_MAX:
            raise invalid(f"parameter {name} must have 1 to {USER_ID_BYTES_MAX} bytes", name)
        if isinstance(value, int) and not -(2**63) <= value < 2**64:
            raise invalid(f"parameter {name} must be a 64-bit integer", name)


def _check_outputs(outputs: list[InferOutput]) -> None:
    for output in outputs:
        if output.name != OUTPUT:
            raise invalid(f"unexpected output {output.name!r}; this model has {OUTPUT!r}", output.name)


def _tensors(inputs: list[InferInput]) -> dict[str, NDArray[np.int64]]:
    tensors: dict[str, NDArray[np.int64]] = {}
    for tensor in inputs:
        if tensor.name not in INPUTS:
            raise invalid(f"unexpected input {tensor.name!r}; this model has {', '.join(INPUTS)}", tensor.name)
        if tensor.name in tensors:
            raise invalid(f"input {tensor.name!r} is given twice", tensor.name)
        tensors[tensor.name] = _tensor(tensor)
    for name in INPUTS:
        if name not in tensors:
            raise invalid(f"input {name!r} is missing", name)
    return tensors


def _tensor(tensor: InferInput) -> NDArray[np.int64]:
    """The values of one tensor `[1, n]` as an array of n."""
    name, shape = tensor.name, tensor.shape
    if tensor.datatype != "INT64":
        raise invalid(f"input {name!r} has datatype {tensor.datatype!r}, expected 'INT64'", name)
    if len(shape) != 2 or shape[0] != 1 or shape[1] < 0:
        raise invalid(f"input {name!r} has shape {shape}, expected [1, n]", name)
    values = _integers(tensor)
    if values.shape[0] != shape[1]:
        raise invalid(f"input {name!r} has shape {shape} but {values.shape[0]} values", name)
    return values


def _integers(tensor: InferInput) -> NDArray[np.int64]:
    """Contents of a tensor: JSON numbers, flat in row-major order or nested as the shape says."""
    raw = bytes(tensor.data)
    if not raw:
        raise invalid(f"input {tensor.name!r} has no data", tensor.name)
    try:
        if raw[1:].lstrip()[:1] == b"[":
            rows = _NESTED.decode(raw)
            if len(rows) != 1:
                raise invalid(f"input {tensor.name!r} has {len(rows)} rows of data, expected 1", tensor.name)
            values = rows[0]
        else:
            values = _FLAT.decode(raw)
    except msgspec.DecodeError as error:
        raise invalid(f"input {tensor.name!r} data: {error}", tensor.name) from error
    return np.array(values, np.int64)


def _check_lengths(tensors: dict[str, NDArray[np.int64]], profile: Profile) -> int:
    """Lengths that belong together and are within limits; returns the history's."""
    tokens = len(tensors["history_items"])
    for name in HISTORY_INPUTS[1:]:
        if tensors[name].shape[0] != tokens:
            raise invalid(f"input {name!r} has {tensors[name].shape[0]} values, history_items has {tokens}", name)
    if tokens == 0:
        raise invalid("input 'history_items' is empty: a history has at least one event", "history_items")
    tokens_max = HISTORY_MULTIPLE_MAX * profile.model.tokens_max
    if tokens > tokens_max:
        raise invalid(f"input 'history_items' has {tokens} events, at most {tokens_max} are taken", "history_items")
    candidates = tensors["candidates"].shape[0]
    if candidates == 0:
        raise invalid("input 'candidates' is empty: there is nothing to score", "candidates")
    candidates_max = CANDIDATES_MULTIPLE_MAX * profile.candidates
    if candidates > candidates_max:
        raise invalid(f"input 'candidates' has {candidates} items, at most {candidates_max} are taken", "candidates")
    return tokens


def _check_range(name: str, values: NDArray[np.int64], stop: int) -> None:
    outside = (values < 0) | (values >= stop)
    if outside.any():
        index = int(outside.argmax())
        raise invalid(f"input {name!r} at index {index}: {int(values[index])} is outside 0 to {stop - 1}", name)


def invalid(detail: str, field: str | None = None) -> WireError:
    """A refusal of what the client sent."""
    return WireError(ErrorCode.INVALID_REQUEST, detail, field)


# --- answers ------------------------------------------------------------------------------


def encode_result(inputs: RankInputs, scores: NDArray[np.float32], model_version: str) -> bytes:
    """Body of a successful answer; it says so when the history was truncated."""
    answer: dict[str, Any] = {"model_name": MODEL_NAME, "model_version": model_version}
    if inputs.request_id:
        answer["id"] = inputs.request_id
    if inputs.truncated:
        answer["parameters"] = {
            "history_truncated": True,
            "history_tokens_sent": inputs.history_tokens,
            "history_tokens_used": inputs.items.shape[0],
        }
    answer["outputs"] = [{"name": OUTPUT, "shape": [1, scores.shape[0]], "datatype": "FP32", "data": scores.tolist()}]
    return _ENCODER.encode(answer)


def encode_error(error: WireError) -> bytes:
    """The protocol's error object: one string."""
    return _ENCODER.encode({"error": error.detail})


def server_metadata() -> dict[str, Any]:
    """Body of `GET /v2`."""
    return {"name": SERVER_NAME, "version": SERVER_VERSION, "extensions": EXTENSIONS}


def model_metadata(model_version: str) -> dict[str, Any]:
    """Body of `GET /v2/models/{name}`; -1 is a length the request chooses."""
    return {
        "name": MODEL_NAME,
        "versions": [model_version],
        "platform": "helm_hstu",
        "inputs": [{"name": name, "datatype": "INT64", "shape": [1, -1]} for name in INPUTS],
        "outputs": [{"name": OUTPUT, "datatype": "FP32", "shape": [1, -1]}],
    }


def check_model(name: str, version: str | None, model_version: str) -> None:
    """Refuse a model or version this node does not serve. Names are case-sensitive."""
    if name != MODEL_NAME:
        raise WireError(ErrorCode.UNKNOWN_MODEL, f"unknown model {name!r}; this server has {MODEL_NAME!r}")
    if version is not None and version != model_version:
        raise WireError(ErrorCode.UNKNOWN_MODEL, f"model {name!r} has no version {version!r}, only {model_version!r}")
