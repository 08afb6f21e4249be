"""Latency of a server with Poisson arrivals, any service times and first-come-first-served order (M/G/1).

Mean wait: Pollaczek-Khinchine, E[W] = lambda E[S^2] / (2 (1 - rho)). Distribution: the transform equation of the same
names (Kleinrock, Queueing Systems, vol. 1, 1975, ch. 5): with probability rho^k the wait is the sum of k residual
service times, so W^ = (1 - rho) / (1 - rho R^) where R has the density P(S > t) / E[S]; a latency is a wait and an
independent service time, T^ = W^ S^. It is inverted by FFT on a lattice long enough for its tail.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

UTILISATION_MAX = 0.98  # above it a wait is a matter of how long the overload lasts, not of the split
_LATTICE = 2048
_TAIL_WAITS = 16.0  # conditional mean waits that the lattice spans: e**-16 lies beyond


class Service(NamedTuple):
    """Service times as point masses, for R servers of K points each."""

    ms: NDArray[np.float64]  # [R, K], > 0
    weight: NDArray[np.float64]  # [R, K], rows sum to 1

    @property
    def mean_ms(self) -> NDArray[np.float64]:
        """E[S], [R]."""
        return np.asarray((self.ms * self.weight).sum(axis=1))

    @property
    def squared_ms2(self) -> NDArray[np.float64]:
        """E[S^2], [R]."""
        return np.asarray((self.ms**2 * self.weight).sum(axis=1))


def utilisation(arrivals_per_second: float, service: Service) -> NDArray[np.float64]:
    """Share of time each server works, [R], at most `UTILISATION_MAX`."""
    return np.minimum(arrivals_per_second / 1e3 * service.mean_ms, UTILISATION_MAX)


def mean_latency_ms(arrivals_per_second: float, service: Service) -> NDArray[np.float64]:
    """Mean of wait and service, [R]."""
    busy = utilisation(arrivals_per_second, service)
    return np.asarray(service.mean_ms + busy * _mean_wait_if_any_ms(busy, service))


def latency_quantile_ms(arrivals_per_second: float, service: Service, q: float) -> NDArray[np.float64]:
    """Latency that a share `q` of the requests does not exceed, [R]."""
    busy = utilisation(arrivals_per_second, service)
    step = (service.ms.max(axis=1) + _TAIL_WAITS * _mean_wait_if_any_ms(busy, service)) / (_LATTICE - 2)
    served = _on_lattice(service, step)
    longer = 1.0 - np.cumsum(served, axis=1)
    # residual times lie between lattice points: half of each to either side
    residual = np.maximum(longer, 0.0) / 2.0
    residual[:, 1:] += np.maximum(longer[:, :-1], 0.0) / 2.0
    residual /= residual.sum(axis=1, keepdims=True)
    transform = np.fft.rfft(served) * (1.0 - busy)[:, None] / (1.0 - busy[:, None] * np.fft.rfft(residual))
    latency = np.maximum(np.fft.irfft(transform, _LATTICE), 0.0)
    return np.asarray(np.array([_quantile(row, q) for row in latency]) * step)


def _mean_wait_if_any_ms(busy: NDArray[np.float64], service: Service) -> NDArray[np.float64]:
    """E[W | W > 0]."""
    return np.asarray(service.squared_ms2 / (2.0 * service.mean_ms * (1.0 - busy)))


def _on_lattice(service: Service, step: NDArray[np.float64]) -> NDArray[np.float64]:
    """Point masses shared between the neighbours in proportion, which keeps the mean, [R, _LATTICE]."""
    at = service.ms / step[:, None]
    below = at.astype(np.int64)
    share = at - below
    masses = np.zeros((service.ms.shape[0], _LATTICE))
    rows = np.broadcast_to(np.arange(masses.shape[0])[:, None], at.shape)
    np.add.at(masses, (rows, below), service.weight * (1.0 - share))
    np.add.at(masses, (rows, below + 1), service.weight * share)
    return masses


def _quantile(masses: NDArray[np.float64], q: float) -> float:
    """In lattice steps; a mass is spread half a step to either side."""
    cumulative = np.cumsum(masses) / masses.sum()
    place = int(np.searchsorted(cumulative, q))
    before = cumulative[place - 1] if place else 0.0
    return float(max(0.0, place - 0.5 + (q - before) / (cumulative[place] - before)))
