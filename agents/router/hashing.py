"""One 64-bit mixer for everything that needs chance or a stable order inside a kernel."""

import hashlib

import numpy as np

from agents.numerics.jit import kernel

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_S30 = np.uint64(30)
_S27 = np.uint64(27)
_S31 = np.uint64(31)


def name_hash(name: str) -> int:
    """Hash of a node's name: the hash order must survive a renumbering of the fleet."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")


@kernel
def mix(value: np.uint64) -> np.uint64:
    """Splitmix's finaliser over one step: neighbouring inputs give unrelated outputs."""
    mixed = value + _GOLDEN
    mixed = (mixed ^ (mixed >> _S30)) * _FIRST
    mixed = (mixed ^ (mixed >> _S27)) * _SECOND
    return mixed ^ (mixed >> _S31)
