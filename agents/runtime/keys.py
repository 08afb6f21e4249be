"""User keys at the edge of a node: the cluster's for those with an id, one used once for those without."""

import hashlib

from agents.wire.ids import user_key


class UserKeys:
    """Keys of one node. Requests without an id must never meet each other's prefixes, nor anybody's."""

    def __init__(self, salt: bytes, instance: str) -> None:
        self._salt = salt
        self._instance = instance.encode()
        self._nameless = 0

    def key(self, user_id: str | int | None) -> int:
        """A key that is never zero. `None` gets a new one at every call."""
        if user_id is not None:
            return user_key(user_id, self._salt)
        self._nameless += 1
        name = self._instance + self._nameless.to_bytes(8, "little")
        digest = hashlib.blake2b(name, digest_size=8, key=self._salt, person=b"nameless").digest()
        return int.from_bytes(digest, "little") or 1
