"""Content encodings of HTTP bodies: what a client accepts, and bounded work in both directions.

`deflate` means the zlib format, as RFC 9110 says. Requests to a node are decompressed by its HTTP library,
chunk by chunk up to the body's limit; `decompressed` is for those who must look into a body they pass on.
"""

import zlib

LEVEL = 1  # answers are floats: higher levels cost three times as much for a tenth fewer bytes
_WINDOW = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
ENCODINGS = tuple(_WINDOW)


class DecompressionError(ValueError):
    """The bytes are not what their encoding says, or the encoding is unknown."""


def accepted_encoding(header: str | None) -> str | None:
    """The encoding to answer in, `None` for none: the first of ours with the highest weight above zero."""
    if not header:
        return None
    weights: dict[str, float] = {}
    for part in header.lower().split(","):
        name, _, parameters = part.partition(";")
        weights[name.strip()] = _weight(parameters)
    others = weights.get("*", 0.0)
    best = max(ENCODINGS, key=lambda encoding: weights.get(encoding, others))
    return best if weights.get(best, others) > 0 else None


def _weight(parameters: str) -> float:
    name, _, value = parameters.partition("=")
    if name.strip() != "q":
        return 1.0
    try:
        return float(value)
    except ValueError:
        return 0.0


def compressed(body: bytes, encoding: str) -> bytes:
    """`body` in one of `ENCODINGS`."""
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, _WINDOW[encoding])
    return packer.compress(body) + packer.flush()


def decompressed(body: bytes, encoding: str, bytes_max: int) -> bytes:
    """The first `bytes_max` bytes of what `body` holds; `DecompressionError` when it cannot be read."""
    window = _WINDOW.get(encoding.strip().lower())
    if window is None:
        raise DecompressionError(f"content encoding {encoding!r} is not known")
    if bytes_max <= 0:
        return b""
    try:
        return zlib.decompressobj(window).decompress(body, bytes_max)
    except zlib.error as error:
        raise DecompressionError(str(error)) from error
