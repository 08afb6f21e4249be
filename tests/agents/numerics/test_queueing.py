"""Predicted latencies against closed forms and against a queue that is simulated request by request."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from agents.numerics.queueing import UTILISATION_MAX, Service, latency_quantile_ms, mean_latency_ms


def points(ms: NDArray[np.float64]) -> Service:
    return Service(ms[None, :], np.full((1, ms.shape[0]), 1.0 / ms.shape[0]))


def exponential(mean_ms: float) -> Service:
    return points(-mean_ms * np.log1p(-(np.arange(4000) + 0.5) / 4000))


def constant(ms: float) -> Service:
    return Service(np.array([[ms]]), np.array([[1.0]]))


def md1_wait_share(t: float, ms: float, arrivals_per_ms: float) -> float:
    """P(W <= t) of constant service (Erlang, 1909)."""
    terms = [
        (arrivals_per_ms * (k * ms - t)) ** k / math.factorial(k) * math.exp(-arrivals_per_ms * (k * ms - t))
        for k in range(int(t / ms) + 1)
    ]
    return (1.0 - arrivals_per_ms * ms) * math.fsum(terms)


@pytest.mark.parametrize("busy", [0.1, 0.5, 0.8, 0.95])
def test_exponential_service_gives_the_closed_form(busy: float) -> None:
    arrivals = busy / 10.0 * 1e3
    assert mean_latency_ms(arrivals, exponential(10.0))[0] == pytest.approx(10.0 / (1.0 - busy), rel=0.01)
    for q in (0.5, 0.99):
        assert latency_quantile_ms(arrivals, exponential(10.0), q)[0] == pytest.approx(-10.0 * math.log(1.0 - q) / (1.0 - busy), rel=0.01)


@pytest.mark.parametrize("busy", [0.3, 0.6, 0.85])
def test_constant_service_gives_the_closed_form(busy: float) -> None:
    arrivals = busy / 10.0 * 1e3
    assert mean_latency_ms(arrivals, constant(10.0))[0] == pytest.approx(10.0 + busy * 10.0 / (2.0 * (1.0 - busy)))
    found = latency_quantile_ms(arrivals, constant(10.0), 0.99)[0]
    assert md1_wait_share(found - 10.0, 10.0, busy / 10.0) == pytest.approx(0.99, abs=0.0005)


def test_a_mixture_of_short_and_long_agrees_with_a_simulated_queue() -> None:
    short, long, long_share, arrivals = 5.0, 40.0, 0.2, 55.0
    service = Service(np.array([[short, long]]), np.array([[1.0 - long_share, long_share]]))
    rng = np.random.default_rng(1)
    served = np.where(rng.random(1_000_000) < long_share, long, short)
    drift = np.concatenate([[0.0], np.cumsum(served[:-1] - rng.exponential(1e3 / arrivals, served.shape[0] - 1))])
    latency = drift - np.minimum.accumulate(drift) + served  # Lindley's recursion, unrolled
    assert mean_latency_ms(arrivals, service)[0] == pytest.approx(latency.mean(), rel=0.01)
    for q in (0.5, 0.9, 0.99):
        assert latency_quantile_ms(arrivals, service, q)[0] == pytest.approx(np.quantile(latency, q), rel=0.01)


def test_several_servers_are_predicted_at_once_and_an_idle_one_only_serves() -> None:
    service = Service(np.array([[10.0], [20.0]]), np.ones((2, 1)))
    np.testing.assert_allclose(latency_quantile_ms(1e-9, service, 0.99), [10.0, 20.0], rtol=0.01)


def test_more_work_than_time_is_predicted_at_the_highest_utilisation_that_means_something() -> None:
    most = UTILISATION_MAX / 10.0 * 1e3
    assert latency_quantile_ms(500.0, constant(10.0), 0.99)[0] == pytest.approx(latency_quantile_ms(most, constant(10.0), 0.99)[0])
