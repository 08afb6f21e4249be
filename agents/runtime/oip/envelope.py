"""The outer shape of an inference request: a JSON head and, with the binary extension, raw tensors behind it.

With the header `Inference-Header-Content-Length: n` the first n bytes of the body are the JSON head; the
tensors that give a `binary_data_size` follow it without gaps, in the order of `inputs`. Without the header
the whole body is JSON. The length counts the body after any content encoding was taken off.
"""

from collections.abc import Iterator
from typing import Annotated, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from agents.numerics.integers import LISTS_MAX, UNREAD, take_lists
from agents.numerics.jit import bound_by_first_call
from agents.runtime.compression import DecompressionError, decompressed
from agents.runtime.oip.metadata import CANDIDATES, HISTORY_INPUTS
from agents.wire.errors import ErrorCode, WireError

HEAD_HEADER = "Inference-Header-Content-Length"
BODY_BYTES_MAX = 16 << 20

Size = Annotated[int, msgspec.Meta(ge=0)]


class InputParameters(msgspec.Struct, frozen=True):
    """Parameters of an input tensor that this server reads."""

    binary_data_size: Size | None = None
    shared_memory_region: str | None = None


class InferInput(msgspec.Struct, frozen=True):
    """One input tensor as it stands in the head; `data` is decoded once its type is known."""

    name: str
    shape: list[int]
    datatype: str
    parameters: InputParameters = InputParameters()
    data: msgspec.Raw = msgspec.Raw(b"")


class OutputParameters(msgspec.Struct, frozen=True):
    """Parameters of an output that this server reads."""

    binary_data: bool | None = None
    classification: int | None = None
    shared_memory_region: str | None = None


class InferOutput(msgspec.Struct, frozen=True):
    """One output the client asks for."""

    name: str
    parameters: OutputParameters = OutputParameters()


class InferParameters(msgspec.Struct, frozen=True):
    """Request parameters this server reads; others are the client's own business."""

    user_id: str | int | None = None
    history_version: str | int | None = None
    timeout: Size | None = None  # microseconds the answer may take; 0: no wish
    binary_data_output: bool = False


class InferBody(msgspec.Struct, frozen=True):
    """Head of an inference request."""

    inputs: list[InferInput]
    id: str = ""
    parameters: InferParameters = InferParameters()
    outputs: list[InferOutput] = []


_BODY = msgspec.json.Decoder(InferBody)
_take_lists = bound_by_first_call(take_lists)
MARK_BYTES = 3  # of what stands for a list: a digit in brackets
_MARKS = [f"[{number}]".encode() for number in range(LISTS_MAX)]


class Envelope(NamedTuple):
    """A request that was opened: its head, and the contents of tensors that were read on the way."""

    head: InferBody
    tails: dict[str, memoryview]  # raw bytes of the binary tensors by name
    lists: dict[bytes, NDArray[np.int64]]  # contents by what stands for them in the head's `data`


def invalid(detail: str, field: str | None = None) -> WireError:
    """A refusal of what the client sent."""
    return WireError(ErrorCode.INVALID_REQUEST, detail, field)


def json_bytes_of(header: str | None) -> int | None:
    """Value of the binary extension's header, `None` when it was not sent."""
    if header is None:
        return None
    if not (header.isascii() and header.isdigit() and len(header) < 20):
        raise invalid(f"header {HEAD_HEADER} must be a number of bytes", HEAD_HEADER)
    return int(header)


def open_envelope(body: bytes, json_bytes: int | None, integers_max: int) -> Envelope:
    """Open a request whose tensors have no more than `integers_max` elements together; larger ones are just read more slowly."""
    if json_bytes is None:
        head, lists = _decode(body, integers_max)
        return Envelope(head, dict(_tails(head.inputs, memoryview(b""))), lists)
    if json_bytes > len(body):
        raise invalid(f"header {HEAD_HEADER} is {json_bytes}, the body has {len(body)} bytes", HEAD_HEADER)
    content = memoryview(body)
    head, lists = _decode(content[:json_bytes], integers_max)
    return Envelope(head, dict(_tails(head.inputs, content[json_bytes:])), lists)


def _decode(head: bytes | memoryview, integers_max: int) -> tuple[InferBody, dict[bytes, NDArray[np.int64]]]:
    """The head, and the lists of integers in it: read beside it, because a general reader skips each twice."""
    rest = np.empty(len(head) + LISTS_MAX, np.uint8)
    values, ends = np.empty(min(integers_max, len(head) // 2) + 1, np.int64), np.empty(LISTS_MAX, np.int64)
    size, count = _take_lists(np.frombuffer(head, np.uint8), rest, values, ends)
    if count == UNREAD:
        return _decode_whole(head), {}
    try:
        decoded = _BODY.decode(rest[:size].data)
    except (msgspec.DecodeError, RecursionError):
        return _decode_whole(head), {}  # whose complaint names the client's own bytes
    stops = ends[:count].tolist()
    return decoded, {mark: values[start:stop] for mark, start, stop in zip(_MARKS, [0, *stops], stops, strict=False)}


def _decode_whole(head: bytes | memoryview) -> InferBody:
    try:
        return _BODY.decode(head)
    except msgspec.ValidationError as error:
        raise invalid(f"request: {error}") from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise invalid(f"request is not JSON: {error}") from error


def _tails(inputs: list[InferInput], rest: memoryview) -> Iterator[tuple[str, memoryview]]:
    start = 0
    for tensor in inputs:
        size = tensor.parameters.binary_data_size
        if size is None:
            continue
        if bytes(tensor.data):
            raise invalid(f"input {tensor.name!r} has both data and binary data", tensor.name)
        if start + size > len(rest):
            raise invalid(f"input {tensor.name!r} announces {size} bytes of binary data, {len(rest) - start} are there", tensor.name)
        yield tensor.name, rest[start : start + size]
        start += size
    if start != len(rest):
        raise invalid(f"{len(rest) - start} bytes of binary data belong to no input")


# --- at a glance --------------------------------------------------------------------------


class _Glance(msgspec.Struct, frozen=True):
    name: str = ""
    shape: list[int] = []


class _GlanceParameters(msgspec.Struct, frozen=True):
    user_id: str | int | None = None


class _GlanceBody(msgspec.Struct, frozen=True):
    inputs: list[_Glance] = []
    parameters: _GlanceParameters = _GlanceParameters()


class Peek(NamedTuple):
    """What a request says about itself, unchecked: who, how long a history, how many candidates."""

    user_id: str | int | None
    history_tokens: int
    candidates: int


_GLANCE = msgspec.json.Decoder(_GlanceBody)
_DATA_KEY = b'"data"'
# A glance inflates no more than the requests of any profile need, or a few kilobytes would occupy a router's only loop for
# as long as three hundred requests: what is longer is unreadable here, and a node says what is wrong with it.
_INFLATED_BYTES_MAX = 4 << 20  # three inputs of 4 x 16,384 numbers, 22 bytes each
_INFLATED_RATIO_MAX = 32  # lists of numbers shrink three- to tenfold
_INFLATED_BYTES_FREE = 256 << 10  # whatever the ratio: half a millisecond, and small requests may well repeat one number
_OPENING_BYTES_MAX = 4  # between the key and its array: a colon and a space; others are parsed digit by digit


def peek(body: bytes, head_header: str | None = None, encoding: str | None = None) -> Peek | None:
    """Read only what routing needs, from JSON or the binary extension, compressed or not; `None` when unreadable.

    Lengths come from the shapes, so tensors are never decoded; whether a shape is true is the node's business.
    """
    if encoding is not None and encoding.strip().lower() == "identity":
        encoding = None
    try:
        parsed = _GLANCE.decode(_without_numbers(body) if head_header is None and not encoding else _json_head(body, head_header, encoding))
    except (WireError, DecompressionError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    history, candidates = 0, 0
    for tensor in parsed.inputs:
        if not tensor.shape:
            continue
        if tensor.name == HISTORY_INPUTS[0]:
            history = max(0, tensor.shape[-1])
        elif tensor.name == CANDIDATES:
            candidates = max(0, tensor.shape[-1])
    return Peek(parsed.parameters.user_id, history, candidates)


def _without_numbers(body: bytes) -> bytes:
    """The same JSON with emptied `data` arrays, where they hold nothing but numbers.

    A parser looks at every digit of what it skips; a search for the closing bracket is ten times faster, and the
    numbers are nine tenths of a request. A quote that is not escaped begins or ends a string, so `"data":` is a key.
    """
    kept, start = [], 0
    while (place := body.find(_DATA_KEY, start)) >= 0:
        after = place + len(_DATA_KEY)
        opening = body.find(b"[", after, after + _OPENING_BYTES_MAX)
        closing = body.find(b"]", opening)
        if body[after:opening].strip() != b":" or closing < 0:
            return body
        if body.find(b'"', opening, closing) >= 0 or body.find(b"[", opening + 1, closing) >= 0:
            return body
        kept.append(body[start : opening + 1])
        start = closing
    kept.append(body[start:])
    return b"".join(kept)


def _json_head(body: bytes, head_header: str | None, encoding: str | None) -> memoryview:
    json_bytes = json_bytes_of(head_header)
    if not encoding:
        return memoryview(body)[:json_bytes]
    bound = min(_INFLATED_BYTES_MAX, max(_INFLATED_BYTES_FREE, _INFLATED_RATIO_MAX * len(body)))
    return memoryview(decompressed(body, encoding, bound if json_bytes is None else min(json_bytes, bound)))
