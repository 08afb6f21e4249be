"""What the pick needs to know about a request, read from its body without re-serialising it."""

from typing import NamedTuple

from agents.numerics.prefix import window_start
from agents.runtime.oip import peek
from agents.wire.ids import USER_ID_BYTES_MAX, user_key

_CANDIDATES_MAX = 1_000_000  # more than any node accepts; keeps a forged shape from overflowing the prediction
_HISTORY_FACTOR_MAX = 4  # the protocol truncates histories up to this multiple of the model's maximum


class RequestFacts(NamedTuple):
    """User (0: none), tokens the model will see, candidates."""

    user_key: int
    history_tokens: int
    candidates: int


UNKNOWN = RequestFacts(0, 0, 0)


def read_facts(body: bytes, salt: bytes, tokens_max: int, head_header: str | None = None, encoding: str | None = None) -> RequestFacts:
    """Facts of an inference request. A body that cannot be read gives `UNKNOWN`: the node says what is wrong with it.

    `head_header` and `encoding` are the values of `Inference-Header-Content-Length` and `Content-Encoding`.
    """
    seen = peek(body, head_header, encoding)
    if seen is None:
        return UNKNOWN
    history = min(seen.history_tokens, _HISTORY_FACTOR_MAX * tokens_max)
    candidates = min(seen.candidates, _CANDIDATES_MAX)
    return RequestFacts(_key(seen.user_id, salt), history - window_start(history, tokens_max), candidates)


def _key(user_id: str | int | None, salt: bytes) -> int:
    if user_id is None:
        return 0
    text = str(user_id)
    if 4 * len(text) > USER_ID_BYTES_MAX and len(text.encode(errors="replace")) > USER_ID_BYTES_MAX:
        return 0
    try:
        return user_key(text, salt)
    except UnicodeEncodeError:
        return 0
