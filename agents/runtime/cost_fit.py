"""Fits the constants of the cost model to measured requests; arrays in, constants and their errors out.

The terms are fitted one after the other, each on requests in which only its own cause varies, and what is
fitted is taken for granted by the next. A constant is never negative: a cause that seems to save time is
left out, and its term's residuals show what that costs.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.numerics.cost import Cost, prefill_ms
from agents.numerics.least_squares import nonnegative
from agents.profiles import FittedTerm

DELTA_FORMULA = "prefill(n) - (1 - kv_hit_compute_ratio) * prefill(cached), at least ms_kv_hit_floor"


class Sample(NamedTuple):
    """One kind of request, measured: its causes, and milliseconds per stage (medians of repetitions)."""

    term: str  # the constant it was made for
    tokens: int
    cached: int
    candidates: int
    hits: int
    misses: int
    emb_ms: float
    attend_ms: float  # prefix out of the arena, compute, blocks into the arena


class Fit(NamedTuple):
    """Constants, and how well each term's formula gives what was measured."""

    cost: Cost
    terms: list[FittedTerm]


def fit_cost(samples: Sequence[Sample]) -> Fit:
    """Constants from samples of the terms `link`, `gather`, `candidates`, `prefill` and `delta`.

    `ValueError` when a term has fewer samples than it has constants.
    """
    link = _chosen(samples, "link", at_least=2)
    gather = _chosen(samples, "gather", at_least=2)
    cast = _chosen(samples, "candidates", at_least=2)
    prefill = _chosen(samples, "prefill", at_least=3)
    delta = _chosen(samples, "delta", at_least=1)
    miss_fixed, per_miss = _nonnegative(link.emb_ms, [link.misses])
    hit_fixed, per_hit = _nonnegative(gather.emb_ms, [gather.hits])
    cast_fixed, per_candidate = _nonnegative(cast.attend_ms, [cast.candidates])
    compute = prefill.attend_ms - per_candidate * prefill.candidates
    compute_fixed, per_token, per_square = _nonnegative(compute, [prefill.tokens, prefill.tokens**2])
    begun = Cost(hit_fixed + compute_fixed, per_hit, per_miss, per_token, per_square, per_candidate, 0.0)
    cost = _with_hits(begun, delta, compute_fixed)
    return Fit(
        cost,
        [
            _term("link", "a + ms_per_missing_row * rows", link.emb_ms, miss_fixed + per_miss * link.misses),
            _term("gather", "a + ms_per_hit_row * rows", gather.emb_ms, hit_fixed + per_hit * gather.hits),
            _term("candidates", "a + ms_per_candidate * candidates", cast.attend_ms, cast_fixed + per_candidate * cast.candidates),
            _term("prefill", "a + ms_per_token * n + ms_per_token_squared * n^2", prefill.attend_ms, _attend(cost, prefill, compute_fixed)),
            _term("delta", DELTA_FORMULA, delta.attend_ms, _attend(cost, delta, compute_fixed)),
        ],
    )


class _Columns(NamedTuple):
    """Samples of one term, column by column, float64."""

    tokens: NDArray[np.float64]
    cached: NDArray[np.float64]
    candidates: NDArray[np.float64]
    hits: NDArray[np.float64]
    misses: NDArray[np.float64]
    emb_ms: NDArray[np.float64]
    attend_ms: NDArray[np.float64]


def _chosen(samples: Sequence[Sample], term: str, at_least: int) -> _Columns:
    rows = [sample[1:] for sample in samples if sample.term == term]
    if len(rows) < at_least:
        raise ValueError(f"{len(rows)} samples of {term}, {at_least} are needed")
    return _Columns(*np.array(rows, np.float64).T)


def _nonnegative(measured: NDArray[np.float64], causes: Sequence[NDArray[np.float64]]) -> list[float]:
    """Least squares of `measured` on one and the causes, none negative."""
    return nonnegative(measured, np.stack([np.ones_like(measured), *causes], axis=1))


def _with_hits(cost: Cost, delta: _Columns, compute_fixed: float) -> Cost:
    """What a cached prefix still costs: a share of its recompute, and never less than the cheapest hit seen."""
    left = delta.attend_ms - compute_fixed - cost.ms_per_candidate * delta.candidates
    of_new = cost.ms_per_token * (delta.tokens - delta.cached) + cost.ms_per_token_squared * (delta.tokens**2 - delta.cached**2)
    of_cached = cost.ms_per_token * delta.cached + cost.ms_per_token_squared * delta.cached**2
    weight = float(of_cached @ of_cached)
    ratio = float((left - of_new) @ of_cached) / weight if weight > 0 else 0.0
    return cost._replace(ms_kv_hit_floor=float(max(0.0, left.min())), kv_hit_compute_ratio=min(max(ratio, 0.0), 1.0))


def _attend(cost: Cost, columns: _Columns, compute_fixed: float) -> NDArray[np.float64]:
    pairs = zip(columns.tokens.tolist(), columns.cached.tolist(), strict=True)
    prefill = np.array([prefill_ms(cost, tokens, cached) for tokens, cached in pairs], np.float64)
    return np.asarray(prefill + compute_fixed + cost.ms_per_candidate * columns.candidates)


def _term(term: str, formula: str, measured: NDArray[np.float64], fitted: NDArray[np.float64]) -> FittedTerm:
    residuals = np.abs(measured - fitted)
    spread = float(((measured - measured.mean()) ** 2).sum())
    r_squared = 1.0 - float((residuals**2).sum()) / spread if spread > 0 else 0.0
    return FittedTerm(
        term=term,
        formula=formula,
        samples=measured.shape[0],
        r_squared=round(r_squared, 5),
        residual_ms_median=round(float(np.median(residuals)), 5),
        residual_ms_max=round(float(residuals.max()), 5),
    )
