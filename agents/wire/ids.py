"""User keys: 64-bit keyed hashes with the cluster's salt, so that raw ids are never stored."""

import hashlib

USER_ID_BYTES_MAX = 128


def user_key(user_id: str | int, salt: bytes) -> int:
    """Key of a user, the same at router, node and capture for one `salt` (<= 64 bytes).

    An integer id and its decimal string are the same user: clients mix both spellings.
    Zero is reserved for "no user" in the tables, so it is never returned.
    """
    digest = hashlib.blake2b(str(user_id).encode(), digest_size=8, key=salt).digest()
    return int.from_bytes(digest, "little") or 1
