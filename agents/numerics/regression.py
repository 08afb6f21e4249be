"""Online regression of service time on what a request did: recursive least squares that cannot wind up.

Forgetting is directional: only what the new sample says something about is forgotten, so a constant
input leaves the other coefficients and their covariance alone (plain forgetting lets the covariance grow
without bound under steady load and ends in infinities). Float64, bounded trace, every step checked for
finiteness before it is taken, coefficients clipped at zero, gross outliers shortened.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.numerics.jit import kernel

_OUTLIER_SIGMAS = 6.0  # a paused process is not a slow model
_SAMPLES_BEFORE_CLIPPING = 50
_VARIANCE_MEMORY = 0.99
_EXCITATION_MIN = 1e-12  # a sample of which nothing is left to learn

# rows of `vectors`
_SCALES = 0
_THETA = 1
_X = 2  # scratch: the scaled sample
_PX = 3  # scratch: covariance times it
_VECTORS = 4

# places in `numbers`
_FORGETTING = 0
_TRACE_MAX = 1
_VARIANCE = 2
_SAMPLES = 3
_REJECTED = 4
_NUMBERS = 5


class RegressionState(NamedTuple):
    """One linear cost of F features; only this module's kernels write it."""

    vectors: NDArray[np.float64]  # [4, F] scales, scaled coefficients, scratch
    covariance: NDArray[np.float64]  # [F, F]
    numbers: NDArray[np.float64]  # settings and totals


def new_regression(
    prior: NDArray[np.float64],
    scales: NDArray[np.float64],
    *,
    forgetting: float = 0.999,
    prior_weight: float = 1.0,
    trace_max: float = 1e4,
) -> RegressionState:
    """Start at `prior` (ms per unit of each feature), worth `prior_weight` samples of size `scales`."""
    if prior.shape != scales.shape or not np.isfinite(prior).all() or not (np.isfinite(scales) & (scales > 0)).all():
        raise ValueError("prior and scales must be finite, of one length, scales > 0")
    if not 0.5 < forgetting <= 1.0 or not prior_weight > 0.0 or not trace_max > 0.0:
        raise ValueError("forgetting must be in (0.5, 1], prior_weight and trace_max > 0")
    vectors = np.zeros((_VECTORS, prior.shape[0]))
    vectors[_SCALES] = scales
    vectors[_THETA] = np.clip(prior * scales, 0.0, None)
    numbers = np.zeros(_NUMBERS)
    numbers[_FORGETTING], numbers[_TRACE_MAX], numbers[_VARIANCE] = forgetting, trace_max, math.nan
    return RegressionState(vectors, np.eye(prior.shape[0]) / prior_weight, numbers)


def coefficients(state: RegressionState) -> NDArray[np.float64]:
    """Milliseconds per unit of each feature; finite and not negative."""
    return np.asarray(state.vectors[_THETA] / state.vectors[_SCALES])


def residual_ms_sigma(state: RegressionState) -> float:
    """Standard deviation of recent prediction errors, for intervals; NaN before the first sample."""
    return math.sqrt(float(state.numbers[_VARIANCE]))


def samples(state: RegressionState) -> int:
    """Samples learned so far."""
    return int(state.numbers[_SAMPLES])


def rejected(state: RegressionState) -> int:
    """Samples refused as not finite or overflowing."""
    return int(state.numbers[_REJECTED])


@kernel
def coefficient(state: RegressionState, feature: int) -> float:
    """Milliseconds per unit of one feature."""
    return float(state.vectors[_THETA, feature] / state.vectors[_SCALES, feature])


@kernel
def predict(state: RegressionState, features: NDArray[np.float64]) -> float:
    """Milliseconds of a request with these features [F]."""
    total = 0.0
    for feature in range(features.shape[0]):
        total += coefficient(state, feature) * features[feature]
    return total


@kernel
def learn(state: RegressionState, features: NDArray[np.float64], service_ms: float) -> bool:
    """Learn one sample of service time without queue; False, and nothing changed, if a number would not stay finite."""
    error = _error(state, features, service_ms)
    excitation = _project(state)
    if not (math.isfinite(error) and math.isfinite(excitation * excitation) and math.isfinite(error * excitation)):
        state.numbers[_REJECTED] += 1
        return False
    error = _shortened(state, error)
    if excitation > _EXCITATION_MIN:
        _step(state, error, excitation)
    if math.isnan(state.numbers[_VARIANCE]):
        state.numbers[_VARIANCE] = error * error
    state.numbers[_VARIANCE] += (1.0 - _VARIANCE_MEMORY) * (error * error - state.numbers[_VARIANCE])
    state.numbers[_SAMPLES] += 1
    return True


@kernel
def _error(state: RegressionState, features: NDArray[np.float64], service_ms: float) -> float:
    """Observed minus predicted; leaves the scaled sample in the scratch row."""
    error = service_ms
    for i in range(features.shape[0]):
        scaled = features[i] / state.vectors[_SCALES, i]
        state.vectors[_X, i] = scaled
        error -= state.vectors[_THETA, i] * scaled
    return float(error)


@kernel
def _project(state: RegressionState) -> float:
    """What the sample in the scratch row could still teach; leaves covariance times sample beside it."""
    size = state.covariance.shape[0]
    excitation = 0.0
    for i in range(size):
        projected = 0.0
        for j in range(size):
            projected += state.covariance[i, j] * state.vectors[_X, j]
        state.vectors[_PX, i] = projected
        excitation += state.vectors[_X, i] * projected
    return excitation


@kernel
def _shortened(state: RegressionState, error: float) -> float:
    if state.numbers[_SAMPLES] < _SAMPLES_BEFORE_CLIPPING:
        return error
    limit = _OUTLIER_SIGMAS * math.sqrt(state.numbers[_VARIANCE]) + 1e-6
    return float(min(max(error, -limit), limit))


@kernel
def _step(state: RegressionState, error: float, excitation: float) -> None:
    size = state.covariance.shape[0]
    forgetting = state.numbers[_FORGETTING]
    gain = error / (1.0 + excitation)
    # negative while the direction holds less uncertainty than forgetting grants: it then grows a little
    shrink = (forgetting - (1.0 - forgetting) / excitation) / (forgetting * (1.0 + excitation))
    trace = 0.0
    for i in range(size):
        state.vectors[_THETA, i] = max(0.0, state.vectors[_THETA, i] + state.vectors[_PX, i] * gain)
        for j in range(size):
            state.covariance[i, j] -= shrink * state.vectors[_PX, i] * state.vectors[_PX, j]
        trace += state.covariance[i, i]
    if trace > state.numbers[_TRACE_MAX]:
        for i in range(size):
            for j in range(size):
                state.covariance[i, j] *= state.numbers[_TRACE_MAX] / trace
