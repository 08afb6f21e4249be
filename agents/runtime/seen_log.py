"""Whom a node served lately, whichever router sent them: how routers learn of each other's users without knowing of each other.

Every router follows every node, so what a node repeats here reaches all of them. Bounded: a reader that
is slower than the log misses the oldest, and then a returning user looks new to it, as before.
"""

from collections import deque
from collections.abc import Iterable

from agents.wire.messages import UsersSeen

KEPT = 4_096  # of one node: twenty seconds at 200 requests/s, a hundred times what passes between two tellings


class SeenLog:
    """A numbered ring of (user key, when)."""

    def __init__(self, kept: int = KEPT) -> None:
        self._entries: deque[tuple[int, int]] = deque(maxlen=kept)
        self._newest = 0  # number of the newest entry; the first one has number 1

    def add(self, keys: Iterable[int], at_ns: int) -> None:
        """Users of one batch; 0 is nobody."""
        for key in keys:
            if key != 0:
                self._entries.append((key, at_ns))
                self._newest += 1

    def since(self, number: int, now_ns: int) -> tuple[int, UsersSeen | None]:
        """Number of the newest entry and what came after `number`, newest of each user only; `None` if nothing did."""
        count = min(self._newest - number, len(self._entries))
        if count <= 0:
            return self._newest, None
        latest = dict(list(self._entries)[-count:])
        ages_ms = [max(0, now_ns - at_ns) // 1_000_000 for at_ns in latest.values()]
        return self._newest, UsersSeen(user_keys=list(latest), ages_ms=ages_ms)
