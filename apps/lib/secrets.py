"""Machine secrets: 256 random bits, of which only a SHA-256 is kept.

A slow hash is for people's passwords; 256 random bits cannot be guessed.
"""

import hashlib
import secrets
from typing import NamedTuple


class Minted(NamedTuple):
    """A new secret, and what is stored of it."""

    secret: str
    digest: str


def mint(prefix: str) -> Minted:
    """A new secret such as `helm_...`."""
    secret = prefix + secrets.token_urlsafe(32)
    return Minted(secret, digest(secret))


def digest(secret: str) -> str:
    """What is stored and looked up."""
    return hashlib.sha256(secret.encode()).hexdigest()
