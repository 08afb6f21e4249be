import numpy as np
import pytest

from agents.numerics.cost import Cost, prefill_ms
from agents.runtime.cost_fit import Sample, fit_cost

TRUE = Cost(0.7, 0.0003, 0.0103, 0.0028, 1e-5, 0.0044, 0.0, 0.25)
GATHER_FIXED_MS, COMPUTE_FIXED_MS = 0.2, 0.5


def sample(term: str, tokens: int, cached: int, candidates: int, resident: bool = True, cost: Cost = TRUE) -> Sample:
    """What a device of exactly these costs would show."""
    rows = tokens - cached + candidates
    per_row = cost.ms_per_hit_row if resident else cost.ms_per_missing_row
    attend_ms = COMPUTE_FIXED_MS + cost.ms_per_candidate * candidates + prefill_ms(cost, tokens, cached)
    hits = rows if resident else 0
    return Sample(term, tokens, cached, candidates, hits, rows - hits, GATHER_FIXED_MS + per_row * rows, attend_ms)


def samples(cost: Cost = TRUE) -> list[Sample]:
    counts, lengths = (32, 64, 128, 256, 512), (96, 192, 384, 768)
    return [
        *(sample("link", 64, 64, count, resident=False, cost=cost) for count in counts),
        *(sample("gather", 64, 64, count, cost=cost) for count in counts),
        *(sample("candidates", 384, 384, count, cost=cost) for count in counts),
        *(sample("prefill", tokens, 0, 512, cost=cost) for tokens in lengths),
        *(sample("delta", tokens, cached, 512, cost=cost) for tokens in lengths for cached in lengths if cached <= tokens),
    ]


def test_costs_that_follow_the_formula_are_found_exactly() -> None:
    fitted = fit_cost(samples())
    found = fitted.cost._replace(ms_kv_hit_floor=0.0)
    assert tuple(found) == pytest.approx(tuple(TRUE), rel=1e-6)
    assert [term.term for term in fitted.terms] == ["link", "gather", "candidates", "prefill", "delta"]
    assert all(term.r_squared == 1.0 and term.residual_ms_max == 0.0 for term in fitted.terms)
    assert [term.samples for term in fitted.terms] == [5, 5, 5, 4, 10]


def test_the_floor_is_the_cheapest_hit_seen() -> None:
    cost = TRUE._replace(ms_kv_hit_floor=0.4, kv_hit_compute_ratio=0.0)
    assert fit_cost(samples(cost)).cost.ms_kv_hit_floor == pytest.approx(0.4)


def test_noise_shows_as_residuals_and_not_as_negative_costs() -> None:
    chance = np.random.default_rng(1)
    noisy = [one._replace(emb_ms=one.emb_ms + chance.normal(0, 0.3), attend_ms=one.attend_ms + chance.normal(0, 0.3)) for one in samples()]
    fitted = fit_cost(noisy)
    assert min(fitted.cost) >= 0.0
    assert all(0.0 < term.residual_ms_median <= term.residual_ms_max for term in fitted.terms)
    assert all(term.r_squared < 1.0 for term in fitted.terms)


def test_a_cause_that_seems_to_save_time_costs_nothing() -> None:
    falling = [one._replace(emb_ms=5.0 - 0.001 * one.hits) if one.term == "gather" else one for one in samples()]
    fitted = fit_cost(falling)
    assert fitted.cost.ms_per_hit_row == 0.0
    assert fitted.terms[1].r_squared == pytest.approx(0.0, abs=1e-6)


def test_a_term_without_enough_samples_is_named() -> None:
    with pytest.raises(ValueError, match="1 samples of prefill, 3 are needed"):
        fit_cost([one for one in samples() if one.term != "prefill"] + [sample("prefill", 96, 0, 512)])
