"""What theory knows of queues and caches, against whole fleets of one node."""

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from agents.pool.state import Counter
from agents.profiles import Profile
from agents.sim.fleet import SimulatedFleet
from agents.sim.splits import node_stream, replay_splits
from agents.sim.world import HOP_NS
from tests.agents.sim.streams import TINY, WrittenStream, costing, every, run_of, written

REQUESTS = 400_000
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
    assert np.abs(found - lindley_ns(at_ns, np.full(REQUESTS, MEAN_SERVICE_NS))).max() <= 2.0  # rounding of floats to ns


def lindley_ns(at_ns: NDArray[np.int64], service_ns: NDArray[np.int64]) -> NDArray[np.int64]:
    """Waits of a queue with one server in order of arrival: the work so far minus the least backlog that time took away."""
    balance = np.concatenate(([0], np.cumsum(service_ns[:-1] - np.diff(at_ns))))
    return np.asarray(balance - np.minimum.accumulate(balance))


# --- caches -------------------------------------------------------------------------------

ITEMS = 20_000
EMB_RATIO = 0.25


def zipf_rows(exponent: float, count: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    popularity = np.arange(1, ITEMS + 1) ** -exponent
    popularity /= popularity.sum()
    return popularity, np.random.default_rng(3).choice(ITEMS, count, p=popularity)


def che_hit_ratio(popularity: NDArray[np.float64], capacity: int) -> float:
    """Che, Tung and Wang, "Hierarchical Web caching systems", 2002: every item stays for the time in which `capacity` others come."""
    low, high = 0.0, 1e9
    for _ in range(100):
        middle = (low + high) / 2.0
        low, high = (middle, high) if (1.0 - np.exp(-popularity * middle)).sum() < capacity else (low, middle)
    return float((popularity * (1.0 - np.exp(-popularity * low))).sum())


def hits(fleet: SimulatedFleet, since: NDArray[np.int64]) -> float:
    gained = fleet.nodes[0].state.counters - since
    return float(gained[Counter.EMB_HITS] / gained[Counter.EMB_LOOKUPS])


@pytest.mark.parametrize("exponent", [0.8, 1.0])
def test_a_row_cache_without_admission_hits_as_che_says(exponent: float) -> None:
    popularity, wanted = zipf_rows(exponent, 200_000)
    stream = written(every(0.05, 200_000), rows=wanted.reshape(-1, 1))
    profile = msgspec.structs.replace(QUEUE, pool_bytes=64 * TINY.page_bytes)
    capacity = round(EMB_RATIO * profile.pages) * TINY.rows_per_page
    expected = che_hit_ratio(popularity, capacity)

    replayed = replay_splits(node_stream([stream.block], 0), profile, ratios=np.array([EMB_RATIO]))
    assert 1.0 - replayed.missing_ratio[0, 100_000:].mean() == pytest.approx(expected, abs=0.01)

    half = run_of(written(stream.block.at_ns[:100_000], rows=wanted[:100_000].reshape(-1, 1)), profile, **FLAT)
    whole = run_of(stream, profile, **FLAT)
    assert hits(whole, half.nodes[0].state.counters) == pytest.approx(expected, abs=0.01)


FLAT = {"method": f"static-{EMB_RATIO}", "emb_ratio_start": EMB_RATIO, "admission": "none"}


def distances(users: list[int]) -> list[int]:
    """Distinct others since the same user came before, by looking at all of them; -1 for the first time."""
    before = {user: [at for at in range(len(users)) if users[at] == user] for user in set(users)}
    found = []
    for at, user in enumerate(users):
        earlier = [place for place in before[user] if place < at]
        found.append(len(set(users[earlier[-1] + 1 : at])) if earlier else -1)
    return found


def of_users(users: NDArray[np.int64]) -> WrittenStream:
    return written(every(10.0, users.shape[0]), users=users, tokens=np.full(users.shape[0], TINY.block_tokens))


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
