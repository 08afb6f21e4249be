"""The residual adapter: a small offset to the base policy's goal, learned from what the node's own moves did.

Every ten seconds the change of ln(service time per request) is set against the change of the ratio. With s the slope
that the value curves predict, the true slope is modelled as b + a * s (at first b = 0, a = 1) and fitted by recursive
least squares with forgetting. While the fitted slope stands clear of its error, the offset walks against it. It never leaves
a trust region, which grows while moves do what was expected and shrinks when they do not. Nothing is learned
in bursts, under an operator's hold, without traffic, with stale statistics or near saturation; without a move there is nothing to
learn, and this layer never moves a node to find out.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.numerics.jit import kernel

OFFSET_RATIO_MAX = 0.05  # half of the guard's largest step: the base stays the author of the ratio
RADIUS_RATIO_MIN = 0.01  # the guard's dead-band; under it an offset does nothing
SETTLE_SECONDS = 10.0  # a step is walked and its first rows are filled by then
_MOVE_RATIO_MIN = 0.005
_FORGETTING = 0.98  # per sample: a memory of about 50 moves
_RATE = 0.02  # ratio per unit of slope and sample: 1 % of cost per 0.01 walks 0.02
_SAMPLES_MIN = 5
_CLEAR_SIGMAS = 1.5
_NOISE_START = 0.03**2  # a quiet minute's mean service time varies by some 3 %
_NOISE_GAIN = 0.1
_UTILISATION_MAX = 0.95  # beyond it the queue, not the split, makes the figures
_CHANGE_MAX = 0.1  # of ln(tokens) or ln(rate) within a sample: then the traffic moved, not we
_STALE_NS = 10_000_000_000

ADAPTER = np.dtype(
    [
        ("intercept", "f8"),
        ("gain", "f8"),
        ("p00", "f8"),  # covariance of (intercept, gain)
        ("p01", "f8"),
        ("p11", "f8"),
        ("noise", "f8"),  # variance of a sample's ln(service time)
        ("offset", "f8"),
        ("radius", "f8"),
        ("samples", "i8"),
        ("frozen", "i8"),  # 1: the signal is too poor to learn from
        ("mark_ns", "i8"),  # 0: no sample begun
        ("mark_ratio", "f8"),
        ("mark_cost", "f8"),
        ("mark_slope", "f8"),
        ("mark_tokens", "f8"),
        ("mark_rate", "f8"),
    ],
    align=True,
)
_KEPT = ("intercept", "gain", "p00", "p01", "p11", "noise", "offset", "radius", "samples")
STATE_VERSION = 1


def reset(adapters: NDArray[Any]) -> None:
    """Trust the curves, offset nothing."""
    adapters[:] = np.zeros(1, ADAPTER)[0]
    adapters["gain"] = 1.0
    adapters["p00"] = adapters["p11"] = 4.0
    adapters["noise"] = _NOISE_START
    adapters["radius"] = RADIUS_RATIO_MIN


def saved(adapters: NDArray[Any]) -> dict[str, float]:
    """What survives a restart, as plain numbers."""
    return {"version": float(STATE_VERSION)} | {name: float(adapters[name][0]) for name in _KEPT}


def restore(adapters: NDArray[Any], state: dict[str, float]) -> bool:
    """Take a saved state; False, and nothing changes, for one that is not whole, finite and inside its bounds."""
    if state.get("version") != STATE_VERSION or not all(isinstance(state.get(name), int | float) for name in _KEPT):
        return False
    inside = abs(state["offset"]) <= OFFSET_RATIO_MAX and RADIUS_RATIO_MIN <= state["radius"] <= OFFSET_RATIO_MAX
    positive = min(state["p00"], state["p11"], state["noise"]) > 0.0 and state["samples"] >= 0
    definite = state["p00"] * state["p11"] > state["p01"] ** 2
    if not (all(math.isfinite(state[name]) for name in _KEPT) and inside and positive and definite):
        return False
    reset(adapters)
    for name in _KEPT:
        adapters[name] = state[name]
    return True


@kernel
def adapt(adapter: Any, moment: Any, slope: float, disturbed: bool) -> float:
    """Offset to the base's goal. `slope`: predicted change of ln(service time) per unit of ratio; `disturbed`: do not learn."""
    cost = math.log(moment.service_ms) if moment.service_ms > 0.0 else np.nan
    poor = disturbed or math.isnan(cost + slope + moment.tokens_per_request) or not moment.utilisation < _UTILISATION_MAX
    poor = poor or not moment.requests_per_second_slow > 0.0 or moment.reuse_age_ns > _STALE_NS or moment.holding == 1
    adapter.frozen = 1 if poor else 0
    if poor:
        adapter.mark_ns = 0
    elif adapter.mark_ns == 0:
        _mark(adapter, moment, cost, slope)
    elif moment.now_ns - adapter.mark_ns >= SETTLE_SECONDS * 1e9:
        _learn(adapter, moment, cost)
        _walk(adapter, slope)
        _mark(adapter, moment, cost, slope)
    return float(adapter.offset)


@kernel
def _mark(adapter: Any, moment: Any, cost: float, slope: float) -> None:
    adapter.mark_ns = max(moment.now_ns, 1)
    adapter.mark_ratio = moment.emb_ratio
    adapter.mark_cost = cost
    adapter.mark_slope = slope
    adapter.mark_tokens = moment.tokens_per_request
    adapter.mark_rate = moment.requests_per_second_slow


@kernel
def _learn(adapter: Any, moment: Any, cost: float) -> None:
    """One sample: what the ratio's change did, unless the traffic changed with it."""
    moved, changed = moment.emb_ratio - adapter.mark_ratio, cost - adapter.mark_cost
    tokens = abs(math.log(moment.tokens_per_request / adapter.mark_tokens))
    rate = abs(math.log(moment.requests_per_second_slow / adapter.mark_rate))
    if not (tokens <= _CHANGE_MAX and rate <= _CHANGE_MAX):
        return
    if abs(moved) < _MOVE_RATIO_MIN:
        adapter.noise += _NOISE_GAIN * (changed * changed - adapter.noise)
        return
    error = changed - moved * (adapter.intercept + adapter.gain * adapter.mark_slope)
    _fit(adapter, moved, moved * adapter.mark_slope, error)
    expected = error * error <= 4.0 * adapter.noise
    adapter.radius = min(max(adapter.radius * (1.2 if expected else 0.5), RADIUS_RATIO_MIN), OFFSET_RATIO_MAX)
    adapter.samples += 1


@kernel
def _fit(adapter: Any, x0: float, x1: float, error: float) -> None:
    """Recursive least squares with two unknowns; covariances are capped so that quiet times cannot inflate them."""
    g0, g1 = adapter.p00 * x0 + adapter.p01 * x1, adapter.p01 * x0 + adapter.p11 * x1
    scale = _FORGETTING * max(adapter.noise, 1e-8) + x0 * g0 + x1 * g1
    adapter.intercept += g0 * error / scale
    adapter.gain += g1 * error / scale
    adapter.p00 = min((adapter.p00 - g0 * g0 / scale) / _FORGETTING, 4.0)
    adapter.p01 = (adapter.p01 - g0 * g1 / scale) / _FORGETTING
    adapter.p11 = min((adapter.p11 - g1 * g1 / scale) / _FORGETTING, 4.0)
    limit = 0.99 * math.sqrt(adapter.p00 * adapter.p11)
    adapter.p01 = min(max(adapter.p01, -limit), limit)


@kernel
def _walk(adapter: Any, slope: float) -> None:
    """Against the fitted slope when it is clear, else back to nothing; never out of the trust region."""
    fitted = adapter.intercept + adapter.gain * slope
    variance = adapter.p00 + 2.0 * slope * adapter.p01 + slope * slope * adapter.p11
    clear = adapter.samples >= _SAMPLES_MIN and abs(fitted) > _CLEAR_SIGMAS * math.sqrt(max(variance, 0.0))
    wanted = adapter.offset - _RATE * fitted if clear else 0.9 * adapter.offset
    adapter.offset = min(max(wanted, -adapter.radius), adapter.radius)
