import numpy as np

from agents.runtime.keys import UserKeys
from agents.wire.ids import user_key

SALT = b"salt"


def test_keys_for_the_nameless_are_never_zero_nor_repeated() -> None:
    keys = UserKeys(SALT, "life-1")
    seen = {keys.key(None) for _ in range(1_000)} | {UserKeys(SALT, "life-2").key(None)}
    assert len(seen) == 1_001
    assert 0 not in seen
    assert keys.key(5) == keys.key("5") == user_key(5, SALT)
    assert np.uint64(max(seen))
