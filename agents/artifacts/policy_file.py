"""Policies as bytes: safetensors for the weights, JSON for the card. No pickle, no torch, no I/O.

Tensors are float32: `layer0.weight` [units, inputs], `layer0.bias` [units], and so on through the hidden
layers to the output. What is read is checked before anything of it is used; a refusal has a code and a name.
"""

import json
import struct
from collections.abc import Mapping
from enum import StrEnum
from itertools import pairwise
from typing import NamedTuple

import msgspec
import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from agents.artifacts.card import FORMAT_VERSION, Card, digest_of, encode_card

BYTES_MAX = 1 << 20  # they lie in the control plane's database and travel to every node
_PREFIX_BYTES = 8  # a safetensors file begins with the length of its header

Arrays = Mapping[str, NDArray[np.float32]]


class Refusal(StrEnum):
    """Why an artefact is not taken."""

    TOO_LARGE = "artefact_too_large"
    NOT_SAFETENSORS = "artefact_not_safetensors"
    TRUNCATED = "artefact_truncated"
    CARD_INVALID = "artefact_card_invalid"
    TOO_NEW = "artefact_too_new"
    DIGEST_MISMATCH = "artefact_digest_mismatch"
    WRONG_SHAPE = "artefact_wrong_shape"
    NOT_FINITE = "artefact_not_finite"
    FEATURES_UNKNOWN = "artefact_features_unknown"


class ArtefactError(ValueError):
    """An artefact was refused. `code` is stable; the message says what exactly was wrong."""

    def __init__(self, code: Refusal, detail: str) -> None:
        super().__init__(code, detail)  # both, so that it comes back whole from another process
        self.code = code
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}"


class PolicyFile(NamedTuple):
    """What is stored and sent: two byte strings and the digest over both."""

    weights: bytes
    card: bytes
    digest: str


class Policy(NamedTuple):
    """A checked policy: layers in order, each (weight [units, inputs], bias [units]), and its card."""

    layers: list[tuple[NDArray[np.float32], NDArray[np.float32]]]
    card: Card


def write_policy(arrays: Arrays, card: Card) -> PolicyFile:
    """Encode, with the digest filled in; raises `ArtefactError` for what could not be read back."""
    contiguous = {name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()}
    _layers(contiguous, card)
    weights = safetensors.numpy.save(contiguous)
    sealed = msgspec.structs.replace(card, digest=digest_of(card, weights))
    file = PolicyFile(weights, encode_card(sealed), sealed.digest)
    read_policy(file.weights, file.card)
    return file


def read_policy(weights: bytes, card: bytes) -> Policy:
    """Decode and check everything; raises `ArtefactError` naming the first thing that is wrong."""
    if len(weights) + len(card) > BYTES_MAX:
        raise ArtefactError(Refusal.TOO_LARGE, f"{len(weights) + len(card)} bytes, at most {BYTES_MAX}")
    described = read_card(card)
    _check_container(weights)
    if digest_of(described, weights) != described.digest:
        raise ArtefactError(Refusal.DIGEST_MISMATCH, "card and weights do not belong together, or one of them was changed")
    try:
        arrays = safetensors.numpy.load(weights)
    except Exception as error:  # whatever its parser makes of hostile bytes
        raise ArtefactError(Refusal.NOT_SAFETENSORS, str(error)[:200]) from None
    return Policy(_layers(arrays, described), described)


def read_card(card: bytes) -> Card:
    """Decode a card; one of a later format is refused before its fields are looked at."""
    try:
        version = json.loads(card)["format_version"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ArtefactError(Refusal.CARD_INVALID, "not a JSON object with a format_version") from None
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ArtefactError(Refusal.CARD_INVALID, "format_version must be a whole number, at least 1")
    if version > FORMAT_VERSION:
        raise ArtefactError(Refusal.TOO_NEW, f"format {version}, this version reads up to {FORMAT_VERSION}")
    try:
        return msgspec.json.decode(card, type=Card)
    except (msgspec.DecodeError, ValueError) as error:
        raise ArtefactError(Refusal.CARD_INVALID, str(error)[:200]) from None


def _check_container(weights: bytes) -> None:
    """The header must be JSON and end inside the file, and so must every tensor."""
    if len(weights) < _PREFIX_BYTES:
        raise ArtefactError(Refusal.TRUNCATED, f"{len(weights)} bytes are no file")
    (header_bytes,) = struct.unpack("<Q", weights[:_PREFIX_BYTES])
    if header_bytes > BYTES_MAX:
        raise ArtefactError(Refusal.NOT_SAFETENSORS, "does not begin with the length of a header")
    if header_bytes > len(weights) - _PREFIX_BYTES:
        raise ArtefactError(Refusal.TRUNCATED, "ends inside the header")
    try:
        header = json.loads(weights[_PREFIX_BYTES : _PREFIX_BYTES + header_bytes])
        end = max(tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__")
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        raise ArtefactError(Refusal.NOT_SAFETENSORS, "the header is not a table of tensors") from None
    if not isinstance(end, int) or end > len(weights) - _PREFIX_BYTES - header_bytes:
        raise ArtefactError(Refusal.TRUNCATED, "ends inside the tensors")


def _layers(arrays: Arrays, card: Card) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    widths = [len(card.features), *card.hidden, card.outputs]
    expected = {f"layer{layer}.{part}" for layer in range(len(widths) - 1) for part in ("weight", "bias")}
    if set(arrays) != expected:
        raise ArtefactError(Refusal.WRONG_SHAPE, f"tensors {', '.join(sorted(set(arrays) ^ expected))} are missing or not expected")
    for layer, (inputs, units) in enumerate(pairwise(widths)):
        for part, shape in (("weight", (units, inputs)), ("bias", (units,))):
            _check_tensor(f"layer{layer}.{part}", arrays[f"layer{layer}.{part}"], shape)
    return [(arrays[f"layer{layer}.weight"], arrays[f"layer{layer}.bias"]) for layer in range(len(widths) - 1)]


def _check_tensor(name: str, array: NDArray[np.float32], shape: tuple[int, ...]) -> None:
    if array.dtype != np.float32 or array.shape != shape:
        raise ArtefactError(Refusal.WRONG_SHAPE, f"{name} is {array.dtype} {list(array.shape)}, the card says float32 {list(shape)}")
    if not np.isfinite(array).all():
        raise ArtefactError(Refusal.NOT_FINITE, f"{name} holds values that are not finite")
