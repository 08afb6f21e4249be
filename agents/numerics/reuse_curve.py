"""Value curves read from recorded reuse distances: what a cache of any size would save.

The sample's luck is repaired twice, by what is known of all references, class by class of the gap since their
group of keys was last touched. (1) Post-stratification: what was sampled of a class is scaled to what the class
offered; the usual repair, the whole difference into the first bin, was worse on every log tried. (2) Distances count
distinct keys, so they inherit the sample's luck too. The average number of distinct keys in a window of w references
is the sum over v < w of the share of references whose gap exceeds v (Denning's working-set recursion, 1968);
computed once from all references and once from those followed, their ratio corrects the distances of each class.
"""

from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.numerics.jit import kernel
from agents.numerics.reuse_state import BY_SAMPLE, FOR_ITSELF, GAPS, HASH_BITS, PACES, STRATA, ReuseState

_DRIFT_MAX = 0.1  # mean distance of the normalised cumulative curves above which the slow one is stale
_SAMPLES_MIN = 8.0  # sampled references below which a class is repaired together with other poor ones
_STRETCH_MAX = 1.25  # as far as the margin beyond the last capacity reaches
_TOUCHED = 3  # bins by one that is stretched so far
_GAP_EDGES = 2.0 ** (np.arange(GAPS) / 2)  # class k > 0 holds gaps from edge k - 1 up to edge k


class Pace(IntEnum):
    """Which copy of the bins to read. `AUTO`: slow shape at the fast rate, fast shape after a drift."""

    FAST = 0
    SLOW = 1
    AUTO = 2


class Curve(NamedTuple):
    """Value per second that a cache of each capacity saves; V channels, B bins."""

    edges: NDArray[np.float64]  # [B + 1] capacities, first 0
    value: NDArray[np.float64]  # [V, B + 1] cumulative, non-decreasing, first 0
    total: NDArray[np.float64]  # [V] with an infinite cache
    offered: NDArray[np.float64]  # [V] of all references, cold ones included


def edges(state: ReuseState) -> NDArray[np.float64]:
    """Capacities between bins, [B + 1]."""
    head = state.head[0]
    return np.linspace(0.0, float(head["capacity_max"]), int(head["bins"]) + 1)


def sampling_rate(state: ReuseState) -> float:
    """Total rate in force: this estimator's own times the stream's. Hot keys are followed beside it."""
    head = state.head[0]
    return float(head["threshold"]) / 2.0**HASH_BITS * float(head["stream_rate"])


def curve(state: ReuseState, now_ns: int, pace: Pace = Pace.AUTO) -> Curve:
    """Cumulative value per second over capacities. Rates are unbiased from the first second on."""
    value, total, offered = _per_second(state, now_ns, pace)
    return Curve(edges(state), value, total, offered)


def histogram_per_second(state: ReuseState, now_ns: int, pace: Pace = Pace.AUTO) -> NDArray[np.float64]:
    """Differences of `curve` per bin, [V, B + 1]: the last, open bin holds the rest, cold ones included."""
    result = curve(state, now_ns, pace)
    return np.column_stack([np.diff(result.value, axis=1), np.clip(result.offered - result.value[:, -1], 0.0, None)])


def drift(state: ReuseState) -> float:
    """Mean distance of the fast and the slow cumulative curve of channel 0, each normalised; 0..1.

    Cumulative, not per bin: with few samples bins differ by chance alone.
    """
    fast, slow = _strata(state)[:, :, :, 0, :-1].sum(axis=(1, 2))
    if fast.sum() <= 0.0 or slow.sum() <= 0.0:
        return 0.0
    return float(np.abs(np.cumsum(fast) / fast.sum() - np.cumsum(slow) / slow.sum()).mean())


def _strata(state: ReuseState) -> NDArray[np.float64]:
    """The bins as [PACES, STRATA, GAPS, V + 1, columns]."""
    return np.reshape(state.bins, (PACES, STRATA, GAPS, int(state.head[0]["channels"]) + 1, -1))


def _per_second(state: ReuseState, now_ns: int, pace: Pace) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Cumulative value [V, B + 1], total and offered [V] as rates; `AUTO` keeps the fast rate even with the slow shape.

    Two curves are compared with each other in one sum, so both must speak of the same moment's rate.
    """
    if pace is not Pace.AUTO:
        factor = rate_factor(state, now_ns, int(pace))
        value, total, offered = _repaired(state, int(pace))
        return value * factor, total * factor, offered * factor
    if drift(state) > _DRIFT_MAX:
        return _per_second(state, now_ns, Pace.FAST)
    value, total, offered = _per_second(state, now_ns, Pace.SLOW)
    lately = _offered(state, int(Pace.FAST)) * rate_factor(state, now_ns, int(Pace.FAST))
    ratio = np.divide(lately, offered, out=np.zeros_like(offered), where=offered > 0.0)
    return value * ratio[:, None], total * ratio, lately


def _repaired(state: ReuseState, pace: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Cumulative value [V, B + 1], total and offered [V], both strata together, decayed sums."""
    strata, bins = _strata(state)[pace], int(state.head[0]["bins"])
    hot = strata[FOR_ITSELF, :, :-1, :-1]
    sample = strata[BY_SAMPLE, :, :-1, :-1] * _repair(state, pace)[..., None]
    total = (sample + hot)[..., :-1].sum(axis=(0, 2))  # without the cold ones
    stretch = _stretch(state, pace)
    value, moved = np.zeros((total.shape[0], bins + 1)), np.empty((1 + _TOUCHED, total.shape[0], bins))
    for stratum, values in ((BY_SAMPLE, sample), (FOR_ITSELF, hot)):
        _move(values[..., :-2], strata[stratum, :, :, :-3], stretch, moved[0], moved[1:])
        value[:, 1:] += np.cumsum(moved[0], axis=1)
    return value, total, _offered(state, pace)


def _offered(state: ReuseState, pace: int) -> NDArray[np.float64]:
    """All references [V], cold ones included, a decayed sum."""
    strata = _strata(state)[pace]
    return np.asarray(strata[BY_SAMPLE, :, :-1, -1].sum(axis=0) + strata[FOR_ITSELF, :, :-1, :-1].sum(axis=(0, 2)))


def _repair(state: ReuseState, pace: int) -> NDArray[np.float64]:
    """What a class's sample has to be multiplied with, [GAPS, V]; classes with few samples share one factor."""
    sample = _strata(state)[pace, BY_SAMPLE, :, :-1]
    offered, sampled = sample[..., -1], sample[..., :-1].sum(axis=-1)
    poor = sampled[:, 0] < _SAMPLES_MIN * float(state.head[0]["weight"][pace]) / sampling_rate(state)
    offered, sampled = (np.where(poor[:, None], part[poor].sum(axis=0), part) for part in (offered, sampled))
    return np.asarray(np.divide(offered, sampled, out=np.ones_like(sampled), where=sampled > 0.0))


def _stretch(state: ReuseState, pace: int) -> NDArray[np.float64]:
    """What the sampled part of a class's distances has to be multiplied with, [GAPS]; distinct keys weigh their size."""
    sample = _strata(state)[pace, BY_SAMPLE, :, :-1]
    by_size = sample[:, min(1, sample.shape[1] - 1)]
    known, sampled = _footprint(by_size[:, -1]), _footprint(by_size[:, :-1].sum(axis=-1))
    ratio = np.ones(GAPS)
    np.divide(known, sampled, out=ratio[1:], where=sampled > 0.0)
    return np.clip(ratio, 1.0 / _STRETCH_MAX, _STRETCH_MAX)


def _footprint(by_gap: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean size of what windows as long as each class's longest gap touch, [GAPS - 1], up to a common factor."""
    longer = by_gap.sum() - np.concatenate([[0.0], np.cumsum(by_gap[1:])])
    return np.asarray(np.cumsum((longer[:-1] + longer[1:]) / 2.0 * np.diff(_GAP_EDGES)))


@kernel
def _move(
    values: NDArray[np.float64],
    sums: NDArray[np.float64],
    stretch: NDArray[np.float64],
    moved: NDArray[np.float64],
    steps: NDArray[np.float64],
) -> None:
    """Values [GAPS, V, C] of bins whose distances are stretched, summed over classes into `moved` [V, bins].

    Of a bin's distances that share is stretched that rests on the sample: the last of `sums` [GAPS, V + 1, C] over the
    first. Its values are taken as spread evenly over it; stretched by at most a quarter it touches at most `_TOUCHED` bins,
    summed apart, so that sums round the same however many classes are empty. `steps` [_TOUCHED, V, bins] is scratch.
    """
    moved[:] = 0.0
    steps[:] = 0.0
    for gap_class in range(values.shape[0]):
        for column in range(values.shape[2]):
            if values[gap_class, 0, column] != 0.0:
                _spread(values, sums, gap_class, column, stretch[gap_class], steps)
    for later in range(steps.shape[0]):
        for channel in range(moved.shape[0]):
            for place in range(moved.shape[1]):
                moved[channel, place] += steps[later, channel, place]


@kernel
def _spread(
    values: NDArray[np.float64],
    sums: NDArray[np.float64],
    gap_class: int,
    column: int,
    stretch: float,
    steps: NDArray[np.float64],
) -> None:
    """Add one bin's values to the bins that it touches, each to the sum that counts as many bins from the first."""
    first = sums[gap_class, 0, column]
    share = sums[gap_class, sums.shape[1] - 1, column] / first if first > 0.0 else 0.0
    factor = 1.0 + share * (stretch - 1.0)
    low = column * factor
    for later in range(steps.shape[0]):
        place = int(low) + later
        overlap = max(min(low + factor, place + 1.0) - max(low, float(place)), 0.0) / factor
        if place < steps.shape[2] and overlap > 0.0:
            for channel in range(steps.shape[1]):
                steps[later, channel, place] += values[gap_class, channel, column] * overlap


def rate_factor(state: ReuseState, now_ns: int, pace: int) -> float:
    """Turns a decayed sum into a rate per second, correct also while younger than the half-life."""
    head = state.head[0]
    now_ns = max(now_ns, int(head["last_ns"]))
    half_life_ns = float(head["half_life_ns"][pace])
    age_ns = max(now_ns - int(head["started_ns"]), 1_000_000_000)
    decayed = 0.5 ** ((now_ns - int(head["origin_ns"][pace])) / half_life_ns)
    seconds = half_life_ns / 1e9 / np.log(2.0) * -np.expm1(-np.log(2.0) * age_ns / half_life_ns)
    return float(decayed / seconds)
