"""What the value curves cost a node, and how far they are from exact ones."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from agents.caches.policy import cache_policy
from agents.node.meters import new_node_meters
from agents.numerics.reuse import record_rows
from agents.numerics.reuse_curve import Pace, curve
from agents.numerics.reuse_state import ReuseState
from agents.profiles import Profile, load_profile
from agents.router.reuse import ClusterReuseStatistics
from helmctl.bench import curve_accuracy as accuracy
from helmctl.bench.report import Result, Say, result_of

REQUESTS_PER_SECOND = 50.0  # of one node of the demo, near what it can serve
BATCHES = 2_000
USERS = 20_000
DECISIONS_PER_SECOND = 1.0  # no controller reads the curves oftener


def measure(runs: int, say: Say, log: Sequence[Path] = ()) -> list[Result]:
    """Cost on the demo's traffic; errors, worst of ten hashes, on synthetic streams and on logs (`user, item, ts`)."""
    profile = load_profile("cpu-demo")
    return [*_costs(profile, runs, say), *accuracy.synthetic(profile, say), *accuracy.logged(profile, log, say)]


def _costs(profile: Profile, runs: int, say: Say) -> list[Result]:
    """CPU time per reference with the product's own settings, and what it adds up to on a busy demo node."""
    rows_per_request = profile.candidates + profile.model.tokens_max // 2
    rows = [_row_reference_ns(profile, rows_per_request, seed) for seed in range(runs)]
    users = [_user_reference_ns(profile, seed) for seed in range(runs)]
    reads = [_read_ms(profile, seed) for seed in range(runs)]
    busy = [
        REQUESTS_PER_SECOND * (rows_per_request * row + user) / 1e9 + DECISIONS_PER_SECOND * read / 1e3
        for row, user, read in zip(rows, users, reads, strict=True)
    ]
    say(f"curves: {np.median(rows):.0f} ns a row reference, {np.median(busy):.2%} of a core at {REQUESTS_PER_SECOND:.0f} requests/s")
    return [
        result_of("curve_row_reference_ns", rows, "ns"),
        result_of("curve_user_reference_ns", users, "ns"),
        result_of("curve_read_ms", reads, "ms"),
        result_of("curve_requests_per_second", [REQUESTS_PER_SECOND], "1/s"),
        result_of("curve_cpu_ratio", busy, "ratio"),
        result_of("curve_row_references_per_second_in_2_percent", [0.02 * 1e9 / row for row in rows], "1/s"),
        result_of("curve_state_bytes", [float(sum(array.nbytes for array in _row_curve(profile)))], "bytes"),
    ]


def _row_curve(profile: Profile) -> ReuseState:
    return new_node_meters(profile, 1.0, cache_policy("shipped", profile.rows_per_page)).row_curve


def _row_reference_ns(profile: Profile, rows_per_request: int, seed: int) -> float:
    """Behind the doorkeeper, in batches of one request."""
    state, rows = _row_curve(profile), accuracy.demo_rows(profile, BATCHES * rows_per_request, seed).keys
    record_rows(state, 0, rows[:1], profile.row_bytes)
    batches = np.split(rows, BATCHES)
    started = time.thread_time()
    for number, batch in enumerate(batches):
        record_rows(state, int(number * 1e9 / REQUESTS_PER_SECOND), batch, profile.row_bytes)
    return float((time.thread_time() - started) * 1e9 / rows.shape[0])


def _user_reference_ns(profile: Profile, seed: int) -> float:
    """At a router, every user followed, the call from Python included."""
    statistics = ClusterReuseStatistics("bench", 1, profile.pool_bytes // profile.kv_token_bytes, profile.block_tokens, seed=seed)
    users = accuracy.demo_users(profile, USERS, seed)
    statistics.seen(0, 1, 1)
    started = time.thread_time()
    for number, (key, tokens) in enumerate(zip(users.keys.tolist(), users.sizes.tolist(), strict=True)):
        statistics.seen(int(number * 1e9 / REQUESTS_PER_SECOND), key, tokens)
    return (time.thread_time() - started) * 1e9 / USERS


def _read_ms(profile: Profile, seed: int) -> float:
    state = _row_curve(profile)
    record_rows(state, 0, accuracy.demo_rows(profile, 100_000, seed).keys, profile.row_bytes)
    started = time.thread_time()
    curve(state, 0, Pace.FAST)
    return (time.thread_time() - started) * 1e3
