"""The request of the inference protocol: what stands in the envelope, checked against the profile, as arrays.

Tensor contents come in through `_integers`: JSON numbers or the raw little-endian bytes of the binary extension.
"""

from typing import Annotated, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from agents.numerics.integers import UNREAD, first_outside, parse_integers
from agents.numerics.jit import bound_by_first_call
from agents.numerics.prefix import window_start
from agents.profiles import Profile
from agents.runtime.oip.envelope import MARK_BYTES, Envelope, InferBody, InferInput, InferOutput, InferParameters, invalid, open_envelope
from agents.runtime.oip.metadata import CANDIDATES, HISTORY_INPUTS, INPUTS, OUTPUT
from agents.wire.ids import USER_ID_BYTES_MAX

HISTORY_MULTIPLE_MAX = 4  # longer ones are a client's mistake, not a long history
CANDIDATES_MULTIPLE_MAX = 16  # of the profile's usual number: more would hold up everyone else's requests
REQUEST_ID_BYTES_MAX = 1_024  # echoed, so it must not be a way to have megabytes sent back
INTEGER_BYTES = 8

Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class RankInputs(NamedTuple):
    """A checked request. `history_tokens` is what the client sent, the arrays are what is used of it."""

    request_id: str
    user_id: str | int | None
    items: NDArray[np.int64]
    actions: NDArray[np.int64]
    timestamps: NDArray[np.int64]
    candidates: NDArray[np.int64]
    history_tokens: int
    timeout_ms: float | None = None  # the client's wish; `None`: none
    binary_scores: bool = False

    @property
    def truncated(self) -> bool:
        """Whether only the newest part of the history is used."""
        return len(self.items) < self.history_tokens


_FLAT = msgspec.json.Decoder(list[Int64])
_NESTED = msgspec.json.Decoder(list[list[Int64]])
_first_outside = bound_by_first_call(first_outside)


def decode_infer(body: bytes, profile: Profile, json_bytes: int | None = None) -> RankInputs:
    """A request's arrays, within the limits of `profile`; `WireError` names what is wrong.

    `json_bytes` is the length of the JSON head where raw tensors follow it.
    """
    envelope = open_envelope(body, json_bytes, integers_max(profile))
    request = envelope.head
    _check_id(request.id)
    _check_parameters(request.parameters)
    _check_outputs(request.outputs)
    tensors = _tensors(envelope)
    items, actions, timestamps = (tensors[name] for name in HISTORY_INPUTS)
    candidates = tensors[CANDIDATES]
    tokens = _check_lengths(tensors, profile)
    _check_range("history_items", items, profile.rows)
    _check_range("history_actions", actions, profile.model.actions)
    _check_range(CANDIDATES, candidates, profile.rows)
    if (start := window_start(tokens, profile.model.tokens_max)) > 0:
        items, actions, timestamps = items[start:], actions[start:], timestamps[start:]
    return RankInputs(
        request_id=request.id,
        user_id=request.parameters.user_id,
        items=items,
        actions=actions,
        timestamps=timestamps,
        candidates=candidates,
        history_tokens=tokens,
        timeout_ms=request.parameters.timeout / 1e3 if request.parameters.timeout else None,
        binary_scores=_wants_binary(request),
    )


def integers_max(profile: Profile) -> int:
    """Elements of all tensors of the largest request that is taken."""
    history_tokens = HISTORY_MULTIPLE_MAX * profile.model.tokens_max
    return len(HISTORY_INPUTS) * history_tokens + CANDIDATES_MULTIPLE_MAX * profile.candidates


def _wants_binary(request: InferBody) -> bool:
    wishes = [output.parameters.binary_data for output in request.outputs if output.parameters.binary_data is not None]
    return wishes[0] if wishes else request.parameters.binary_data_output


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
        if output.parameters.classification is not None or output.parameters.shared_memory_region is not None:
            raise invalid(f"output {output.name!r}: classification and shared memory are not served here", output.name)
    if len(outputs) > 1:
        raise invalid(f"output {OUTPUT!r} is asked for twice", OUTPUT)


def _tensors(envelope: Envelope) -> dict[str, NDArray[np.int64]]:
    tensors: dict[str, NDArray[np.int64]] = {}
    for tensor in envelope.head.inputs:
        if tensor.name not in INPUTS:
            raise invalid(f"unexpected input {tensor.name!r}; this model has {', '.join(INPUTS)}", tensor.name)
        if tensor.name in tensors:
            raise invalid(f"input {tensor.name!r} is given twice", tensor.name)
        tensors[tensor.name] = _tensor(tensor, envelope)
    for name in INPUTS:
        if name not in tensors:
            raise invalid(f"input {name!r} is missing", name)
    return tensors


def _tensor(tensor: InferInput, envelope: Envelope) -> NDArray[np.int64]:
    """The values of one tensor `[1, n]` as an array of n."""
    name, shape = tensor.name, tensor.shape
    if tensor.datatype != "INT64":
        raise invalid(f"input {name!r} has datatype {tensor.datatype!r}, expected 'INT64'", name)
    if len(shape) != 2 or shape[0] != 1 or shape[1] < 0:
        raise invalid(f"input {name!r} has shape {shape}, expected [1, n]", name)
    tail = envelope.tails.get(name)
    values = _integers(tensor, envelope.lists) if tail is None else _raw_integers(name, tail)
    if values.shape[0] != shape[1]:
        raise invalid(f"input {name!r} has shape {shape} but {values.shape[0]} values", name)
    return values


def _integers(tensor: InferInput, lists: dict[bytes, NDArray[np.int64]]) -> NDArray[np.int64]:
    """Contents of a tensor: JSON numbers, flat in row-major order or nested as the shape says."""
    if len(memoryview(tensor.data)) == MARK_BYTES and (taken := lists.get(bytes(tensor.data))) is not None:
        return taken
    read = np.empty(min(tensor.shape[1], len(memoryview(tensor.data))), np.int64)
    count = parse_integers(np.frombuffer(tensor.data, np.uint8), read)
    if count != UNREAD:
        return read[:count]
    return _nested_or_refused(tensor)


def _nested_or_refused(tensor: InferInput) -> NDArray[np.int64]:
    """The same for every form that is allowed; names what is wrong with the others."""
    raw = bytes(tensor.data)
    if not raw and tensor.parameters.shared_memory_region is not None:
        raise invalid(f"input {tensor.name!r}: shared memory is not served here", tensor.name)
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


def _raw_integers(name: str, tail: memoryview) -> NDArray[np.int64]:
    """Contents of a binary tensor; a copy, because kernels are compiled for aligned and writable arrays."""
    if len(tail) % INTEGER_BYTES:
        raise invalid(f"input {name!r} has {len(tail)} bytes of binary data, not a multiple of {INTEGER_BYTES}", name)
    return np.frombuffer(tail, "<i8").astype(np.int64)


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
    index = _first_outside(values, stop)
    if index != -1:
        raise invalid(f"input {name!r} at index {index}: {int(values[index])} is outside 0 to {stop - 1}", name)
