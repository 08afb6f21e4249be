"""A fleet as after long running: its caches full of what the stream's first minute asks for, ages and all.

An empty fleet takes minutes of traffic to fill 80 GB, and moves the optimum while it does. So before the clock
starts, EMB is filled with the rows that its admission would have kept, the value curves remember as many as a whole pool
holds, and the fleet serves the minute before on devices that take no time: prefixes, doorkeepers, curves and the router's knowledge
are then what they are in mid-life.
"""

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from agents.node.node import Node
from agents.sim.memory import contents, fill_in, size_bytes
from agents.sim.world import World, widened
from agents.workloads.blocks import BlockWorkload, RequestBlock

SECONDS = 60.0  # the admission window of users, and two half-lives of the curves
DOOR_REFERENCES_PER_ROW = 2  # of the pool: half a pool of misses is remembered, and about one reference in four misses
_ROWS_COUNTED_MAX = 2_000_000  # of the minute: enough to rank what fits
_KEPT_BYTES_MAX = 512 << 20  # of a settled fleet: some twelve nodes of 80 GB


@runtime_checkable
class KnowsItsPast(Protocol):
    """A stream that can tell what was asked for before it began."""

    def recent_rows(self, count: int, gap: int = 0) -> NDArray[np.int64]:
        """At most `count` distinct rows, newest first; with a `gap` only those asked for twice within so many references."""
        ...

    def past_blocks(self, block_tokens: int) -> Iterator[RequestBlock]:
        """The requests of the minute before, timed from that minute's begin."""
        ...


@runtime_checkable
class TellsItself(Protocol):
    """A stream that can tell itself from others."""

    @property
    def digest(self) -> str:
        """Hash of everything that it follows from."""
        ...


def first_minute(blocks: Iterator[RequestBlock]) -> Iterator[RequestBlock]:
    """Blocks up to the one in which the first minute ends."""
    for block in blocks:
        yield block
        if block.at_ns[-1] >= SECONDS * 1e9:
            return


def fill_rows(nodes: list[Node], workload: BlockWorkload, blocks: list[RequestBlock], seed: int) -> None:
    """Give every node the rows that a long life would have left it, as many as its EMB holds, in no order."""
    most = max(node.pool_rows for node in nodes)
    gap = DOOR_REFERENCES_PER_ROW * most if nodes[0].policy.rows_wait else 0
    recent = workload.recent_rows(most, gap) if isinstance(workload, KnowsItsPast) else _most_wanted(blocks)
    rng = np.random.default_rng(seed)
    for node in nodes:
        node.refill_commit(0, rng.permutation(recent[: node.emb_pages * node.rows_per_page]))
        node.recall_rows(recent)


def _most_wanted(blocks: list[RequestBlock]) -> NDArray[np.int64]:
    """Rows of the minute, most wanted first."""
    rows = np.concatenate([part for block in blocks for part in (block.history_rows, block.candidate_rows)])
    wanted, counts = np.unique(rows[:_ROWS_COUNTED_MAX], return_counts=True)
    return np.asarray(wanted[np.argsort(-counts, kind="stable")])


class Beginnings:
    """The last fleet of this process as it was when it had settled, for others that begin as it did.

    A comparison runs many methods on one stream from one split, and none of them has a say before time starts. The minute
    before costs an eighth of a run.
    """

    def __init__(self) -> None:
        self._of: tuple[object, ...] | None = None
        self._contents: list[NDArray[np.uint8]] = []
        self._room = (0, 0)

    def keep(self, of: tuple[object, ...], world: World) -> None:
        """Remember what a fleet's memory holds, in place of the one before; a big fleet's is not worth its room."""
        self._of, self._contents = None, []
        if size_bytes(world) <= _KEPT_BYTES_MAX:
            self._of, self._contents, self._room = of, contents(world), (world.hashes.shape[1], world.rows.shape[1])

    def begin(self, of: tuple[object, ...], world: World) -> World | None:
        """The new fleet's world as one that begins alike had it, `None` when there was none."""
        if self._of is None or self._of != of:
            return None
        world = widened(world, *self._room)
        fill_in(world, self._contents)
        return world
