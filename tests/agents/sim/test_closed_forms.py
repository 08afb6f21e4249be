"""What theory knows of queues and caches, against whole fleets of one node."""

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from agents.pool.state import Counter
from agents.profiles import Profile
from agents.sim.fleet import ORIGIN_NS
from agents.sim.splits import node_stream, replay_splits
from agents.sim.world import HOP_NS
from tests.agents.sim.streams import TINY, WrittenStream, costing, every, fleet_of, run_of, written

REQUESTS = 250_000
MEAN_SERVICE_NS = 100_000
# One nanosecond of service a token and nothing else; a queue that refuses nobody.
QUEUE = msgspec.structs.replace(costing(TINY, ms_per_token=1e-6), batch_max=1, queue_max=512, slo_ms=1e5)


def arrivals(load: float, seed: int) -> NDArray[np.int64]:
    return np.cumsum(np.random.default_rng(seed).exponential(MEAN_SERVICE_NS / load, REQUESTS)).astype(np.int64)


def waits_ns(at_ns: NDArray[np.int64], service_ns: NDArray[np.int64]) -> NDArray[np.float64]:
    fleet = run_of(written(at_ns, tokens=service_ns), QUEUE)
    assert fleet.statistics.answers.shape[0] == REQUESTS
    return np.asarray(fleet.statistics.answers["latency_ms"] * 1e6 - service_ns - 2 * HOP_NS)


@pytest.mark.parametrize("load", [0.5])
def test_an_exponential_server_waits_as_an_mm1_queue(load: float) -> None:
    service_ns = np.random.default_rng(2).exponential(MEAN_SERVICE_NS, REQUESTS).astype(np.int64)
    found = waits_ns(arrivals(load, seed=1), service_ns)
    assert found.mean() == pytest.approx(load / (1.0 - load) * MEAN_SERVICE_NS, rel=0.02)


def test_a_constant_server_waits_as_an_md1_queue_and_every_request_as_lindley_says() -> None:
    load, at_ns = 0.6, arrivals(0.6, seed=1)
    found = waits_ns(at_ns, np.full(REQUESTS, MEAN_SERVICE_NS))
    assert found.mean() == pytest.approx(load / (2.0 * (1.0 - load)) * MEAN_SERVICE_NS, rel=0.02)
    assert np.abs(found - lindley_ns(at_ns, np.full(REQUESTS, MEAN_SERVICE_NS))).max() < 1e-3 * MEAN_SERVICE_NS  # a nanosecond a request


def lindley_ns(at_ns: NDArray[np.int64], service_ns: NDArray[np.int64]) -> NDArray[np.int64]:
    """Waits of a queue with one server in order of arrival: the work so far minus the least backlog that time took away."""
    balance = np.concatenate(([0], np.cumsum(service_ns[:-1] - np.diff(at_ns))))
    return np.asarray(balance - np.minimum.accumulate(balance))


# --- caches -------------------------------------------------------------------------------

ITEMS = 20_000
CACHED = 4_096  # rows, or prefixes of a page each
WARM, COUNTED = 60_000, 60_000


def zipf(exponent: float) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    popularity = np.arange(1, ITEMS + 1) ** -exponent
    popularity /= popularity.sum()
    return popularity, np.random.default_rng(3).choice(ITEMS, WARM + COUNTED, p=popularity)


def che_hit_ratio(popularity: NDArray[np.float64]) -> float:
    """Che, Tung and Wang, "Hierarchical Web caching systems", 2002: every item stays for the time in which as many others come as fit."""
    low, high = 0.0, 1e9
    for _ in range(100):
        middle = (low + high) / 2.0
        low, high = (middle, high) if (1.0 - np.exp(-popularity * middle)).sum() < CACHED else (low, middle)
    return float((popularity * (1.0 - np.exp(-popularity * low))).sum())


def hit_ratio(stream: WrittenStream, profile: Profile, hits: Counter, asked: Counter) -> float:
    """Of the second half of the stream, in a fleet that admits everything."""
    fleet = fleet_of(stream, profile, admission="none")
    fleet.advance(ORIGIN_NS + int(stream.block.at_ns[WARM]))
    before = fleet.nodes[0].state.counters.copy()
    assert fleet.run()
    gained = fleet.nodes[0].state.counters - before
    return float(gained[hits] / gained[asked])


@pytest.mark.parametrize("exponent", [0.8, 1.0])
def test_prefixes_without_admission_hit_as_che_says_of_lru(exponent: float) -> None:
    popularity, wanted = zipf(exponent)
    stream = of_users(wanted + 1, step_ms=0.05)
    assert hit_ratio(stream, pool_of(CACHED), Counter.KV_HITS, Counter.KV_REQUESTS) == pytest.approx(che_hit_ratio(popularity), abs=0.01)


@pytest.mark.parametrize("exponent", [0.8, 1.0])
def test_rows_without_admission_hit_as_che_says_and_the_clock_hardly_differs(exponent: float) -> None:
    """The split replay has an exact recency list; a node evicts rows by a clock, which spares the popular a little more."""
    popularity, wanted = zipf(exponent)
    stream, profile = written(every(0.05, wanted.shape[0]), rows=wanted.reshape(-1, 1)), pool_of(CACHED // TINY.rows_per_page)
    expected = che_hit_ratio(popularity)
    exact = replay_splits(node_stream([stream.block], 0), profile, ratios=np.array([0.5]))
    assert 1.0 - exact.missing_ratio[0, WARM:].mean() == pytest.approx(expected, abs=0.01)
    assert hit_ratio(stream, profile, Counter.EMB_HITS, Counter.EMB_LOOKUPS) == pytest.approx(expected, abs=0.02)


def distances(users: list[int]) -> list[int]:
    """Distinct others since the same user came before, by looking at all of them; -1 for the first time."""
    before = {user: [at for at in range(len(users)) if users[at] == user] for user in set(users)}
    found = []
    for at, user in enumerate(users):
        earlier = [place for place in before[user] if place < at]
        found.append(len(set(users[earlier[-1] + 1 : at])) if earlier else -1)
    return found


def of_users(users: NDArray[np.int64], step_ms: float = 10.0) -> WrittenStream:
    return written(every(step_ms, users.shape[0]), users=users, tokens=np.full(users.shape[0], TINY.block_tokens))


def pool_of(kv_pages: int) -> Profile:
    """An even split, a prefix a page, and a device so quick that no prefix is in use when the next one comes."""
    return msgspec.structs.replace(QUEUE, pool_bytes=2 * kv_pages * TINY.page_bytes)


@pytest.mark.parametrize("kv_pages", [2, 5, 11])
def test_prefix_hits_are_the_exact_count_of_reuse_distances_below_the_cache(kv_pages: int) -> None:
    users = np.random.default_rng(4).zipf(1.3, 600) % 40 + 1
    stream, depths = of_users(users), distances(users.tolist())
    below = sum(0 <= depth < kv_pages for depth in depths)
    fleet = run_of(stream, pool_of(kv_pages), admission="none")
    assert fleet.nodes[0].state.counters[Counter.KV_HITS] == below
    replayed = replay_splits(node_stream([stream.block], 0), pool_of(kv_pages), ratios=np.array([0.5]))
    assert int((replayed.cached_ratio[0] > 0).sum()) == below
