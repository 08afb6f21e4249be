import math

import numpy as np
import pytest
from numpy.typing import NDArray

from agents.numerics.regression import coefficients, learn, new_regression, predict, rejected, residual_ms_sigma, samples

SCALES = np.array([1.0, 100.0, 1000.0, 1e6])
TRUE = np.array([1.5, 0.01, 0.012, 1.2e-5])


def features(rng: np.random.Generator) -> NDArray[np.float64]:
    tokens = rng.uniform(200, 800)
    return np.array([1.0, rng.uniform(0, 300), tokens, tokens * tokens])


def test_coefficients_are_found_from_a_wrong_prior() -> None:
    rng = np.random.default_rng(1)
    model = new_regression(TRUE * 3.0, SCALES)
    for _ in range(4000):
        x = features(rng)
        learn(model, x, float(TRUE @ x + rng.normal(0, 0.2)))
    np.testing.assert_allclose(coefficients(model)[1:3], TRUE[1:3], rtol=0.15)
    errors = [abs(predict(model, x) / float(TRUE @ x) - 1.0) for x in (features(rng) for _ in range(200))]
    assert np.mean(errors) < 0.03
    assert residual_ms_sigma(model) == pytest.approx(0.2, rel=0.25)


def test_without_forgetting_it_equals_ridge_regression_in_closed_form() -> None:
    rng = np.random.default_rng(2)
    prior = np.array([2.0, 1.0, 3.0])
    model = new_regression(prior, np.ones(3), forgetting=1.0, prior_weight=5.0)
    xs = rng.uniform(0.5, 2.0, (40, 3))
    ys = xs @ np.array([1.0, 2.0, 4.0]) + rng.normal(0, 0.1, 40)
    for x, y in zip(xs, ys, strict=True):
        learn(model, x, float(y))
    exact = np.linalg.solve(5.0 * np.eye(3) + xs.T @ xs, 5.0 * prior + xs.T @ ys)
    np.testing.assert_allclose(coefficients(model), exact, rtol=1e-8)


def test_a_cost_that_changes_is_followed() -> None:
    rng = np.random.default_rng(3)
    model = new_regression(TRUE, SCALES)
    for factor, count in [(1.0, 3000), (2.0, 6000)]:
        for _ in range(count):
            x = features(rng)
            learn(model, x, float(factor * TRUE @ x + rng.normal(0, 0.2)))
    x = features(rng)
    assert predict(model, x) == pytest.approx(2.0 * float(TRUE @ x), rel=0.03)


def test_a_constant_input_for_days_neither_winds_up_nor_spoils_the_other_coefficients() -> None:
    rng = np.random.default_rng(4)
    model = new_regression(TRUE, SCALES, forgetting=0.995)
    for _ in range(1000):
        x = features(rng)
        learn(model, x, float(TRUE @ x))
    constant = np.array([1.0, 100.0, 500.0, 250_000.0])
    for _ in range(60_000):
        learn(model, constant, float(TRUE @ constant))
    assert np.isfinite(coefficients(model)).all()
    assert np.trace(model.covariance) < 1.0, "nothing was learned, so nothing may have grown"
    other = features(rng)
    assert predict(model, other) == pytest.approx(float(TRUE @ other), rel=0.05)


def test_coefficients_are_never_negative() -> None:
    rng = np.random.default_rng(5)
    model = new_regression(np.array([1.0, 1.0]), np.ones(2))
    for _ in range(500):
        x = rng.uniform(0, 1, 2)
        learn(model, x, float(5.0 * x[0] - 3.0 * x[1]))
        assert (coefficients(model) >= 0.0).all()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_samples_that_are_not_finite_are_counted_and_change_nothing(bad: float) -> None:
    model = new_regression(TRUE, SCALES)
    assert not learn(model, np.array([1.0, 1.0, 1.0, 1.0]), bad)
    assert not learn(model, np.array([1.0, bad, 1.0, 1.0]), 1.0)
    assert rejected(model) == 2
    assert samples(model) == 0
    np.testing.assert_allclose(coefficients(model), TRUE)


def test_an_overflowing_sample_is_undone() -> None:
    model = new_regression(TRUE, SCALES)
    assert not learn(model, np.array([1e200, 1e200, 1e200, 1e300]), 1.0)
    np.testing.assert_allclose(coefficients(model), TRUE)


def test_one_pause_of_the_process_hardly_moves_the_model() -> None:
    rng = np.random.default_rng(6)
    model = new_regression(TRUE, SCALES)
    for _ in range(2000):
        x = features(rng)
        learn(model, x, float(TRUE @ x + rng.normal(0, 0.2)))
    x = features(rng)
    before = predict(model, x)
    learn(model, x, before + 5000.0)
    assert predict(model, x) == pytest.approx(before, rel=0.05)


def test_an_all_zero_sample_teaches_nothing() -> None:
    model = new_regression(TRUE, SCALES)
    assert learn(model, np.zeros(4), 3.0)
    np.testing.assert_allclose(coefficients(model), TRUE)


def test_the_covariance_is_bounded() -> None:
    rng = np.random.default_rng(7)
    model = new_regression(np.ones(2), np.ones(2), forgetting=0.9, trace_max=10.0)
    for _ in range(5000):
        learn(model, rng.uniform(0, 1e-4, 2), 1.0)
    assert np.trace(model.covariance) <= 10.0 * (1 + 1e-9)


@pytest.mark.parametrize(
    ("prior", "scales", "options", "field"),
    [
        (np.ones(2), np.ones(3), {}, "prior"),
        (np.array([math.nan]), np.ones(1), {}, "prior"),
        (np.ones(1), np.zeros(1), {}, "scales"),
        (np.ones(1), np.ones(1), {"forgetting": 0.4}, "forgetting"),
        (np.ones(1), np.ones(1), {"trace_max": 0.0}, "trace_max"),
    ],
)
def test_impossible_settings_are_refused(
    prior: NDArray[np.float64], scales: NDArray[np.float64], options: dict[str, float], field: str
) -> None:
    with pytest.raises(ValueError, match=field):
        new_regression(prior, scales, **options)
