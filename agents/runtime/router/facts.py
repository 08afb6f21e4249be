"""What the pick needs to know about a request, read from its body without re-serialising it."""

from typing import NamedTuple

import msgspec

from agents.numerics.prefix import window_start
from agents.wire.ids import USER_ID_BYTES_MAX, user_key

_CANDIDATES_MAX = 1_000_000  # more than any node accepts; keeps a forged shape from overflowing the prediction
_HISTORY_FACTOR_MAX = 4  # the protocol truncates histories up to this multiple of the model's maximum


class _Tensor(msgspec.Struct, frozen=True):
    name: str = ""
    shape: list[int] = []


class _Parameters(msgspec.Struct, frozen=True):
    user_id: str | int | None = None


class _Body(msgspec.Struct, frozen=True):
    inputs: list[_Tensor] = []
    parameters: _Parameters = _Parameters()


class RequestFacts(NamedTuple):
    """User (0: none), tokens the model will see, candidates."""

    user_key: int
    history_tokens: int
    candidates: int


UNKNOWN = RequestFacts(0, 0, 0)
_decoder = msgspec.json.Decoder(_Body)


def read_facts(body: bytes, salt: bytes, tokens_max: int) -> RequestFacts:
    """Facts of an inference request. A body that cannot be read gives `UNKNOWN`: the node says what is wrong with it."""
    try:
        parsed = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return UNKNOWN
    history, candidates = 0, 0
    for tensor in parsed.inputs:
        if tensor.name == "history_items":
            history = _length(tensor.shape)
        elif tensor.name == "candidates":
            candidates = min(_length(tensor.shape), _CANDIDATES_MAX)
    history = min(history, _HISTORY_FACTOR_MAX * tokens_max)
    return RequestFacts(_key(parsed.parameters.user_id, salt), history - window_start(history, tokens_max), candidates)


def _length(shape: list[int]) -> int:
    return max(0, shape[-1]) if shape else 0


def _key(user_id: str | int | None, salt: bytes) -> int:
    if user_id is None or len(str(user_id).encode(errors="replace")) > USER_ID_BYTES_MAX:
        return 0
    try:
        return user_key(user_id, salt)
    except UnicodeEncodeError:
        return 0
