"""Streams that a test writes down request by request, and fleets that run them from empty caches."""

import hashlib
from collections.abc import Iterator

import msgspec
import numpy as np
from numpy.typing import NDArray

from agents.profiles import Profile, load_profile
from agents.sim.fleet import FleetSetup, SimulatedFleet
from agents.sim.settle import Beginnings
from agents.workloads.blocks import RequestBlock

TINY = load_profile("cpu-tiny")  # 128 pages of 256 rows or 64 tokens
NOBODY = 0  # a key that is never cached
SECOND = 1_000_000_000


class WrittenStream:
    """One block, as it stands."""

    name = "written"
    row_shift = 0

    def __init__(self, block: RequestBlock) -> None:
        self.block = block
        self.duration_seconds = float(block.at_ns[-1]) / SECOND

    def blocks(self, block_tokens: int) -> Iterator[RequestBlock]:
        yield self.block


class RememberedStream(WrittenStream):
    """One that had a past: another written stream, whose rows are all that was asked for lately."""

    def __init__(self, block: RequestBlock, past: RequestBlock) -> None:
        super().__init__(block)
        self._past = past
        self.digest = hashlib.sha256(b"".join(part.tobytes() for part in (*block, *past))).hexdigest()
        self.lived = 0  # how many fleets lived through its past

    def past_blocks(self, block_tokens: int) -> Iterator[RequestBlock]:
        self.lived += 1
        yield self._past

    def recent_rows(self, count: int, gap: int = 0) -> NDArray[np.int64]:
        return np.unique(self._past.candidate_rows)[:count]


def written(
    at_ns: NDArray[np.int64],
    *,
    users: NDArray[np.int64] | None = None,
    tokens: NDArray[np.int64] | None = None,
    rows: NDArray[np.int64] | None = None,
) -> WrittenStream:
    """Requests of nobody without history or rows, unless given; `rows` are [requests, each] candidates, all of a request distinct.

    A user's prefix has a block for every 64 tokens, the same whenever the user comes.
    """
    count = at_ns.shape[0]
    keys = np.full(count, NOBODY) if users is None else users
    lengths = np.zeros(count, np.int64) if tokens is None else tokens
    wanted = np.zeros((count, 0), np.int64) if rows is None else rows
    blocks = lengths // TINY.block_tokens if users is not None else np.zeros(count, np.int64)
    firsts = np.concatenate(([0], np.cumsum(blocks)))
    places = np.arange(firsts[-1]) - np.repeat(firsts[:-1], blocks)
    return WrittenStream(
        RequestBlock(
            at_ns=at_ns.astype(np.int64),
            user_keys=keys.astype(np.uint64),
            history_tokens=lengths.astype(np.int64),
            candidates=np.full(count, wanted.shape[1]),
            block_hashes=(np.repeat(keys, blocks) * 1000 + places + 1).astype(np.uint64),
            block_offsets=firsts,
            history_rows=np.zeros(0, np.int64),
            history_offsets=np.zeros(count + 1, np.int64),
            candidate_rows=np.ascontiguousarray(wanted.reshape(-1)),
            candidate_offsets=np.arange(count + 1) * wanted.shape[1],
        )
    )


def every(step_ms: float, count: int, first_ms: float = 300.0) -> NDArray[np.int64]:
    """Arrivals at an even pace, from when every node of a small fleet has told its load."""
    return ((first_ms + step_ms * np.arange(count)) * 1e6).astype(np.int64)


def costing(profile: Profile, **constants: float) -> Profile:
    """The profile with other cost constants; those not given are zero."""
    nothing = dict.fromkeys(type(profile.cost).__struct_fields__, 0.0)
    return msgspec.structs.replace(profile, cost=type(profile.cost)(**(nothing | constants)))


def fleet_of(
    stream: WrittenStream, *profiles: Profile, drain_seconds: float = 2.0, beginnings: Beginnings | None = None, **changes: object
) -> SimulatedFleet:
    """An empty fleet at an even, unmoved split that runs until its last answer."""
    values: dict[str, object] = {"method": "static-0.50", "settled": False, "warmup_seconds": 0.0}
    values["duration_seconds"] = stream.duration_seconds + drain_seconds
    return SimulatedFleet(FleetSetup(profiles=profiles, **(values | changes)), stream, beginnings)  # type: ignore[arg-type]


def run_of(stream: WrittenStream, *profiles: Profile, **changes: object) -> SimulatedFleet:
    """The same, run to the end."""
    fleet = fleet_of(stream, *profiles, **changes)  # type: ignore[arg-type]
    assert fleet.run()
    return fleet
