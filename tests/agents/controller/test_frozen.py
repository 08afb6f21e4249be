import math
from itertools import pairwise

import numpy as np
import pytest

from agents.artifacts.card import Action, Card
from agents.artifacts.policy_file import ArtefactError, Policy, Refusal, read_policy
from agents.controller.features import DEVIATIONS_MAX, FEATURE_SETS, HELM, PAPER
from agents.controller.frozen import ACTIVATIONS_SHAPE, act, feature_shares, forward, freeze
from agents.numerics.jit import kernel
from tests.agents.controller.policies import SEVEN, STEP, card, constant_policy, random_file, random_policy


@kernel
def run(head: np.ndarray, weights: np.ndarray, inputs: np.ndarray, activations: np.ndarray, anchor: float, best: float) -> float:
    return act(head[0], weights, inputs, activations, anchor, best)


@kernel
def outputs_row(head: np.ndarray, weights: np.ndarray, activations: np.ndarray) -> int:
    return forward(head[0], weights, activations)


def scratch() -> np.ndarray:
    return np.zeros(ACTIVATIONS_SHAPE, np.float32)


@pytest.mark.parametrize("hidden", [(5,), (64, 64), (7, 3, 9)])
def test_the_kernel_computes_what_the_formula_says(hidden: tuple[int, ...]) -> None:
    frozen = random_policy(card(hidden=hidden), seed=3)
    for seed in range(5):
        inputs = np.random.default_rng(seed).normal(size=len(HELM)).astype(np.float32)
        value = inputs
        for weight, bias in frozen.policy.layers[:-1]:
            value = np.tanh(weight @ value + bias)
        weight, bias = frozen.policy.layers[-1]
        activations = scratch()
        activations[0, : len(inputs)] = inputs
        row = outputs_row(frozen.head, frozen.weights, activations)
        assert activations[row, 0] == pytest.approx(float((weight @ value + bias)[0]), abs=5e-6)


def test_tanh_is_exact_to_a_millionth_and_saturates() -> None:
    # a net of one input and one hidden unit is tanh itself
    from agents.artifacts.policy_file import write_policy

    described = card(PAPER, (1,))
    first = np.zeros((1, len(PAPER)), np.float32)
    first[0, 0] = 1.0
    file = write_policy(
        {
            "layer0.weight": first,
            "layer0.bias": np.zeros(1, np.float32),
            "layer1.weight": np.ones((1, 1), np.float32),
            "layer1.bias": np.zeros(1, np.float32),
        },
        described,
    )
    frozen, activations = freeze(read_policy(file.weights, file.card)), scratch()
    for x in np.linspace(-20.0, 20.0, 401):
        activations[0, : len(PAPER)] = 0.0
        activations[0, 0] = x
        row = outputs_row(frozen.head, frozen.weights, activations)
        assert float(activations[row, 0]) == pytest.approx(math.tanh(x), abs=1e-6)


def test_a_step_is_bounded_and_taken_from_its_anchor() -> None:
    inputs = np.zeros(len(HELM))
    up = constant_policy([100.0])
    assert run(up.head, up.weights, inputs, scratch(), 0.4, 0.7) == pytest.approx(0.5)
    anchored = constant_policy([0.5], STEP.__class__(kind="step", period_seconds=5.0, step_ratio_max=0.1, anchor="landscape"))
    assert run(anchored.head, anchored.weights, inputs, scratch(), 0.4, 0.7) == pytest.approx(0.7 + 0.1 * math.tanh(0.5))


@pytest.mark.parametrize(("chosen", "moved"), [(0, -0.06), (3, 0.0), (5, 0.04), (6, 0.06)])
def test_the_best_of_seven_increments_is_added(chosen: int, moved: float) -> None:
    scores = [0.0] * 7
    scores[chosen] = 1.0
    paper = constant_policy(scores, SEVEN, PAPER)
    assert run(paper.head, paper.weights, np.zeros(len(PAPER)), scratch(), 0.5, 0.9) == pytest.approx(0.5 + moved)


def test_a_card_with_features_of_another_product_is_refused_by_name() -> None:
    file = random_file(card(["emb_ratio", "moon_phase"]))
    with pytest.raises(ArtefactError, match="moon_phase") as caught:
        freeze(read_policy(file.weights, file.card))
    assert caught.value.code is Refusal.FEATURES_UNKNOWN


def test_known_features_in_another_order_are_refused() -> None:
    file = random_file(card(HELM[::-1]))
    with pytest.raises(ArtefactError, match="in order"):
        freeze(read_policy(file.weights, file.card))


def policy_of(described: Card, weight: float, bias: float = 0.0) -> Policy:
    """The same weight and the same bias everywhere."""
    widths = [len(described.features), *described.hidden, described.outputs]
    return Policy(
        [(np.full((units, inputs), weight, np.float32), np.full(units, bias, np.float32)) for inputs, units in pairwise(widths)], described
    )


@pytest.mark.parametrize(("features", "action"), [(HELM, STEP), (PAPER, SEVEN)])
@pytest.mark.parametrize(("weight", "bias"), [(3e38, 0.0), (-3e38, 0.0), (1e38, 0.0), (0.0, 3e38), (1.6e36, 1.6e38)])
def test_finite_weights_whose_sums_can_overflow_are_refused(features: tuple[str, ...], action: Action, weight: float, bias: float) -> None:
    with pytest.raises(ArtefactError, match="layer0") as caught:
        freeze(policy_of(card(features, (4, 4), action), weight, bias))
    assert caught.value.code is Refusal.NOT_FINITE


def test_a_later_layer_that_can_overflow_is_refused_by_name() -> None:
    sound = policy_of(card(hidden=(4, 4)), 1.0)
    outputs = (np.full((1, 4), 5e37, np.float32), np.zeros(1, np.float32))
    with pytest.raises(ArtefactError, match="layer2"):
        freeze(sound._replace(layers=[*sound.layers[:-1], outputs]))


@pytest.mark.parametrize("changes", [{"scale": [1e-46] * len(HELM)}, {"scale": [1e-40] * len(HELM)}, {"mean": [-1e39] * len(HELM)}])
@pytest.mark.filterwarnings("error")
def test_statistics_that_overflow_in_the_kernels_precision_are_refused(changes: dict[str, list[float]]) -> None:
    with pytest.raises(ArtefactError, match="mean or 1 / scale") as caught:
        freeze(policy_of(card(**changes), 1.0))
    assert caught.value.code is Refusal.NOT_FINITE


def test_the_largest_weights_that_are_taken_give_finite_scores_for_the_furthest_inputs() -> None:
    described = card(PAPER, (256,), SEVEN)
    sizes = [1e38 / (DEVIATIONS_MAX * len(PAPER)), 1e38 / 256]
    layers = [(weight * np.float32(size), bias) for size, (weight, bias) in zip(sizes, policy_of(described, 1.0).layers, strict=True)]
    frozen = freeze(Policy(layers, described))
    for furthest in (-DEVIATIONS_MAX, DEVIATIONS_MAX):
        activations = scratch()
        activations[0, : len(PAPER)] = furthest
        row = outputs_row(frozen.head, frozen.weights, activations)
        assert np.isfinite(activations[row, :7]).all()
        assert math.isfinite(run(frozen.head, frozen.weights, np.full(len(PAPER), furthest), scratch(), 0.5, 0.9))


@pytest.mark.parametrize(("features", "action"), [(HELM, STEP), (PAPER, SEVEN)])
def test_a_score_that_is_not_a_number_is_no_wish(features: tuple[str, ...], action: Action) -> None:
    frozen = freeze(policy_of(card(features, (4,), action), 1.0))
    poisoned = np.full_like(frozen.weights, np.nan)
    assert math.isnan(run(frozen.head, poisoned, np.zeros(len(features)), scratch(), 0.5, 0.9))


def test_the_two_sets_have_twenty_and_seven_names() -> None:
    assert [len(names) for names in FEATURE_SETS] == [20, 7]


@pytest.mark.parametrize(("features", "action"), [(HELM, STEP), (PAPER, SEVEN)])
def test_feature_shares_are_gradient_times_input(features: tuple[str, ...], action: object) -> None:
    frozen = random_policy(card(features, (6, 5), action), seed=1)  # type: ignore[arg-type]
    inputs = np.random.default_rng(2).normal(size=len(features))

    def chosen_output(at: np.ndarray, which: int | None = None) -> tuple[float, int]:
        value = at
        for weight, bias in frozen.policy.layers[:-1]:
            value = np.tanh(weight.astype(np.float64) @ value + bias)
        weight, bias = frozen.policy.layers[-1]
        outputs = weight.astype(np.float64) @ value + bias
        which = int(np.argmax(outputs)) if which is None else which
        return (0.1 * math.tanh(outputs[0]) if action is STEP else float(outputs[which])), which

    _, which = chosen_output(inputs)
    for position, name in enumerate(features):
        nudge = np.zeros(len(features))
        nudge[position] = 1e-5
        slope = (chosen_output(inputs + nudge, which)[0] - chosen_output(inputs - nudge, which)[0]) / 2e-5
        assert feature_shares(frozen, inputs)[name] == pytest.approx(slope * inputs[position], abs=1e-6)
