"""Online regression of service time on what a request did: recursive least squares that cannot wind up.

Forgetting is directional: only what the new sample says something about is forgotten, so a constant
input leaves the other coefficients and their covariance alone (plain forgetting lets the covariance grow
without bound under steady load and ends in infinities). Float64, bounded trace, every step checked for
finiteness and undone when it fails, coefficients clipped at zero, gross outliers shortened.
"""

import math

import numpy as np
from numpy.typing import NDArray

from agents.numerics.jit import kernel

_OUTLIER_SIGMAS = 6.0  # a paused process is not a slow model
_SAMPLES_BEFORE_CLIPPING = 50
_VARIANCE_MEMORY = 0.99
_EXCITATION_MIN = 1e-12  # a sample of which nothing is left to learn


class CostRegression:
    """Coefficients of a linear cost with a prior; features are scaled to about 1 by `scales`."""

    def __init__(
        self,
        prior: NDArray[np.float64],
        scales: NDArray[np.float64],
        *,
        forgetting: float = 0.999,
        prior_weight: float = 1.0,
        trace_max: float = 1e4,
    ) -> None:
        """Start at `prior` (ms per unit of each feature), worth `prior_weight` samples of size `scales`."""
        if prior.shape != scales.shape or not np.isfinite(prior).all() or not (np.isfinite(scales) & (scales > 0)).all():
            raise ValueError("prior and scales must be finite, of one length, scales > 0")
        if not 0.5 < forgetting <= 1.0 or not prior_weight > 0.0 or not trace_max > 0.0:
            raise ValueError("forgetting must be in (0.5, 1], prior_weight and trace_max > 0")
        self._scales = scales.astype(np.float64)
        self._theta = np.clip(prior.astype(np.float64) * self._scales, 0.0, None)
        self._covariance = np.eye(prior.shape[0]) / prior_weight
        self._forgetting = forgetting
        self._trace_max = trace_max
        self._variance = math.nan
        self.samples = 0
        self.rejected = 0

    @property
    def coefficients(self) -> NDArray[np.float64]:
        """Milliseconds per unit of each feature; finite and not negative."""
        return self._theta / self._scales

    @property
    def residual_ms_sigma(self) -> float:
        """Standard deviation of recent prediction errors, for intervals; NaN before the first sample."""
        return math.sqrt(self._variance)

    def predict(self, features: NDArray[np.float64]) -> float:
        """Milliseconds of a request with these features."""
        return float(self._theta @ (features / self._scales))

    def add(self, features: NDArray[np.float64], service_ms: float) -> bool:
        """Learn one sample of service time without queue; False if it was refused as not finite."""
        scaled = features / self._scales
        if not (np.isfinite(scaled).all() and math.isfinite(service_ms)):
            self.rejected += 1
            return False
        error = self._shortened(service_ms - float(self._theta @ scaled))
        theta, covariance = _step(self._theta, self._covariance, scaled, error, self._forgetting, self._trace_max)
        if not (np.isfinite(theta).all() and np.isfinite(covariance).all()):
            self.rejected += 1
            return False
        self._theta, self._covariance = theta, covariance
        self._learn_variance(error)
        self.samples += 1
        return True

    def _shortened(self, error: float) -> float:
        if self.samples < _SAMPLES_BEFORE_CLIPPING:
            return error
        limit = _OUTLIER_SIGMAS * self.residual_ms_sigma + 1e-6
        return min(max(error, -limit), limit)

    def _learn_variance(self, error: float) -> None:
        if math.isnan(self._variance):
            self._variance = error * error
        self._variance += (1.0 - _VARIANCE_MEMORY) * (error * error - self._variance)


@kernel
def _step(
    theta: NDArray[np.float64],
    covariance: NDArray[np.float64],
    x: NDArray[np.float64],
    error: float,
    forgetting: float,
    trace_max: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    size = x.shape[0]
    px = np.zeros(size)
    for i in range(size):
        for j in range(size):
            px[i] += covariance[i, j] * x[j]
    excitation = (x * px).sum()
    if not excitation > _EXCITATION_MIN:
        return theta.copy(), covariance.copy()
    learned = np.maximum(theta + px * (error / (1.0 + excitation)), 0.0)
    # negative while the direction holds less uncertainty than forgetting grants: it then grows a little
    shrink = (forgetting - (1.0 - forgetting) / excitation) / (forgetting * (1.0 + excitation))
    updated = covariance - shrink * np.outer(px, px)
    trace = np.trace(updated)
    if trace > trace_max:
        updated *= trace_max / trace
    return learned, updated
