"""The facade: what a host's request handler calls."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType

import numpy as np
import torch
from numpy.typing import NDArray

from agents.node.batch import MissReason
from agents.node.node import Node, NodeConfig
from agents.numerics.prefix import block_hashes
from agents.profiles import DeviceName, Profile
from agents.runtime.clock import Clock, SystemClock
from agents.runtime.device.make import make_store
from agents.runtime.device.table import HostTable
from agents.runtime.hosted.life import ControlPlane, Life
from agents.runtime.hosted.pool import Booked, HostedPool
from agents.runtime.keys import UserKeys
from agents.runtime.ranking import RankRequest
from agents.wire.errors import ErrorCode, WireError
from agents.wire.messages import WIRE_VERSION, Hello

WAIT_SECONDS_MAX = 10.0  # for another request of the same user; a host has given its client up by then

Ids = Sequence[int] | NDArray[np.integer]


class Lease:
    """Copies of what one request needs, on the device, until its `with` block ends."""

    def __init__(self, booked: Booked, new_tokens: int, token_floats: int) -> None:
        rows = booked.gathered.rows
        self.new_rows: torch.Tensor = rows[:new_tokens]  # [new, dim] of the history after the prefix
        self.candidate_rows: torch.Tensor = rows[new_tokens:]  # [candidates, dim]
        self.prefix: torch.Tensor = booked.gathered.prefixes[0]  # [cached, token_floats] as it was once kept
        self.cached_tokens: int = booked.cached_tokens
        self.miss_reason: MissReason = booked.miss_reason
        self.fresh: torch.Tensor | None = None
        self._shape = (new_tokens, token_floats)

    def keep(self, fresh: torch.Tensor) -> None:
        """Offer keys and values of the new tokens, `[new, token_floats]`, for later requests; `ValueError` for another shape or type."""
        if tuple(fresh.shape) != self._shape or fresh.dtype != self.prefix.dtype or fresh.device != self.prefix.device:
            given, wanted = _words(fresh, fresh.shape), _words(self.prefix, self._shape)
            raise ValueError(f"keep: {given}, expected {wanted}")
        self.fresh = fresh


class HostedCaches:
    """One pool with both caches. Handlers on any threads; close it, or use it as a context.

    `profile` gives the sizes (pool, pages, rows, bytes of KV per token) and first guesses of the costs, which
    are learned from your requests. `table` is the embedding table in host memory. With `control`, the
    control plane sees the pool as a node called `name` and moves its ratio; without, its controller does alone.
    """

    def __init__(
        self,
        profile: Profile,
        table: HostTable,
        *,
        name: str = "hosted",
        device: DeviceName = "cpu",
        config: NodeConfig | None = None,
        salt: bytes = b"helm",
        url: str = "",
        control: ControlPlane | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        self._profile = profile
        self._name, self._url = name, url
        config = config or NodeConfig()
        self._store = make_store(device, profile, table)
        self._started_unix_ns = self._clock.unix_ns()
        self._keys = UserKeys(salt, str(self._started_unix_ns))
        self._pool = HostedPool(Node(name, profile, config), self._store, profile, self._clock)
        self._busy: set[int] = set()
        self._turn = threading.Condition()
        self._life = Life(self._pool, profile, config.tick_ns, self._clock, control, self._hello)
        self._life.start()

    def __enter__(self) -> "HostedCaches":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the thread beside the requests; leases that are open may still end."""
        self._life.close()

    @property
    def emb_ratio(self) -> float:
        """Share of the pool that embedding rows have now."""
        return self._pool.emb_ratio

    @contextmanager
    def lease(
        self, user_id: str | int | None, items: Ids, candidates: Ids, *, actions: Ids | None = None, timestamps: Ids | None = None
    ) -> Iterator[Lease]:
        """Rows and prefix for one request; what was given to `Lease.keep` is written when the block ends without an error.

        `items` is the whole history, oldest first; with `actions` and `timestamps` it says which kept prefix is still
        the same. Requests of one user wait for each other. `ValueError` for ids outside the table or parts of
        different lengths, `WireError` when the device is out of memory or the user's turn does not come.
        """
        if self._life.failure is not None:
            raise RuntimeError("the caches have failed") from self._life.failure
        arrived_ns = self._clock.now_ns()
        request = self._request(user_id, items, candidates, actions, timestamps)
        with self._turn_of(request.user_key):
            booked = self._pool.book(request, arrived_ns)
            lease = Lease(booked, request.items.shape[0] - booked.cached_tokens, self._store.arena.token_floats)
            try:
                yield lease
            except BaseException:
                self._pool.give_up(booked, failed=True)
                raise
            if lease.fresh is None and booked.plan.write_pages.shape[0]:
                self._pool.give_up(booked, failed=False)
            else:
                self._pool.finish(booked, lease.fresh)

    @contextmanager
    def _turn_of(self, user_key: int) -> Iterator[None]:
        """One lease per user at a time: what one is about to write, another must not read."""
        with self._turn:
            if not self._turn.wait_for(lambda: user_key not in self._busy, WAIT_SECONDS_MAX):
                raise WireError(ErrorCode.QUEUE_FULL, f"another request of this user has not ended for {WAIT_SECONDS_MAX:g} s")
            self._busy.add(user_key)
        try:
            yield
        finally:
            with self._turn:
                self._busy.remove(user_key)
                self._turn.notify_all()

    def _request(self, user_id: str | int | None, items: Ids, candidates: Ids, actions: Ids | None, timestamps: Ids | None) -> RankRequest:
        history = _rows_of("items", items, self._profile.rows)
        acts, times = (_beside("actions", actions, history), _beside("timestamps", timestamps, history))
        known = history.shape[0] if user_id is not None else 0
        hashes = block_hashes(history[:known], acts[:known], times[:known], self._profile.block_tokens)
        return RankRequest(self._keys.key(user_id), history, acts, times, hashes, _rows_of("candidates", candidates, self._profile.rows))

    def _hello(self) -> Hello:
        return Hello(
            name=self._name,
            wire_version=WIRE_VERSION,
            observed_generation=self._pool.generation,
            profile=self._profile.kind,
            device=self._store.name,
            emulated=self._store.emulated,
            infer_url=self._url,
            started_unix_ns=self._started_unix_ns,
        )


def _words(tensor: torch.Tensor, shape: tuple[int, ...]) -> str:
    return f"{tuple(shape)} {tensor.dtype} on {tensor.device}"


def _rows_of(name: str, ids: Ids, rows: int) -> NDArray[np.int64]:
    found = _integers(name, ids)
    if found.shape[0] == 0:
        raise ValueError(f"{name}: none given")
    outside = (found < 0) | (found >= rows)
    if outside.any():
        raise ValueError(f"{name}: {int(found[outside.argmax()])} at index {int(outside.argmax())} is outside 0 to {rows - 1}")
    return found


def _beside(name: str, values: Ids | None, history: NDArray[np.int64]) -> NDArray[np.int64]:
    if values is None:
        return np.zeros(history.shape[0], np.int64)
    found = _integers(name, values)
    if found.shape != history.shape:
        raise ValueError(f"{name}: {found.shape[0]} values for {history.shape[0]} items")
    return found


def _integers(name: str, values: Ids) -> NDArray[np.int64]:
    array = np.asarray(values)
    if array.size == 0:
        return np.zeros(0, np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ValueError(f"{name}: a flat list of integers is needed, not {array.dtype} {array.shape}")
    return array.astype(np.int64)
