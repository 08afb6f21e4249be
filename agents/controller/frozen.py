"""The frozen base policy: a small tanh network as one kernel over one flat array.

Layout of the array (float32): means and reciprocal scales of the features, then per layer the weights as
[inputs, units] and the biases. Inputs outermost lets the compiler work on many units at once.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.artifacts.card import HIDDEN_LAYERS_MAX, UNITS_MAX
from agents.artifacts.policy_file import ArtefactError, Policy, Refusal
from agents.controller.features import DEVIATIONS_MAX, FEATURE_SETS, FEATURES_MAX
from agents.numerics.jit import kernel

INCREMENTS_MAX = 16
STEP, INCREMENTS = 0, 1

HEAD = np.dtype(
    [
        ("features", "i8"),  # inputs; 0: no policy
        ("paper_features", "i8"),  # 1: the paper's seven
        ("layers", "i8"),
        ("widths", "i8", (HIDDEN_LAYERS_MAX + 2,)),  # inputs, hidden ..., outputs
        ("kind", "i8"),  # STEP or INCREMENTS
        ("step_ratio_max", "f8"),
        ("anchored", "i8"),  # 1: steps are taken from the best split of the curves, not from the present ratio
        ("increments", "f8", (INCREMENTS_MAX,)),
        ("period_ns", "i8"),
        ("follow_share", "f8"),  # how far a wish pulls the smoothed one
        ("hold_ratio", "f8"),  # a wish nearer than this to where the node is means hold
    ],
    align=True,
)
ACTIVATIONS_SHAPE = (2, UNITS_MAX)  # inputs and outputs of a layer, float32
_SUM_MAX = float(np.finfo(np.float32).max) / 2.0  # half: a float32 sum may round above its exact value


class FrozenPolicy(NamedTuple):
    """A policy as kernels take it, and as it was read."""

    head: NDArray[Any]  # [1] of HEAD
    weights: NDArray[np.float32]
    policy: Policy


def freeze(policy: Policy) -> FrozenPolicy:
    """Arrays for the kernel; raises `ArtefactError` for features that are none of the sets known here, and for what overflows."""
    card = policy.card
    if tuple(card.features) not in FEATURE_SETS:
        unknown = sorted(set(card.features) - set(FEATURE_SETS[0]) - set(FEATURE_SETS[1]))
        raise ArtefactError(Refusal.FEATURES_UNKNOWN, f"unknown {', '.join(unknown)}" if unknown else "not one of the known sets, in order")
    if len(card.action.increments) > INCREMENTS_MAX or len(card.features) > FEATURES_MAX:
        raise ArtefactError(Refusal.WRONG_SHAPE, f"at most {INCREMENTS_MAX} increments and {FEATURES_MAX} features")
    _require_bounded(policy)
    with np.errstate(over="ignore", divide="ignore"):  # refused by name below
        parts = [np.asarray(card.mean, np.float32), 1.0 / np.asarray(card.scale, np.float32)]
    for weight, bias in policy.layers:
        parts += [np.ascontiguousarray(weight.T).ravel(), bias]
    weights = np.concatenate(parts).astype(np.float32)
    if not np.isfinite(weights).all():
        raise ArtefactError(Refusal.NOT_FINITE, "mean or 1 / scale of a feature overflows float32")
    return FrozenPolicy(_head(policy), weights, policy)


def _require_bounded(policy: Policy) -> None:
    """No inputs may overflow a sum: finite weights can give NaN for a score, and that would look like a policy that holds."""
    input_max = DEVIATIONS_MAX
    for layer, (weight, bias) in enumerate(policy.layers):
        sums = input_max * np.abs(weight.astype(np.float64)).sum(axis=1) + np.abs(bias.astype(np.float64))
        if not (sums <= _SUM_MAX).all():
            raise ArtefactError(Refusal.NOT_FINITE, f"layer{layer}: a unit's sum can overflow float32")
        input_max = 1.0  # tanh


def _head(policy: Policy) -> NDArray[Any]:
    card, head = policy.card, np.zeros(1, HEAD)
    widths = [len(card.features), *card.hidden, card.outputs]
    head["features"] = len(card.features)
    head["paper_features"] = FEATURE_SETS.index(tuple(card.features))
    head["layers"] = len(widths) - 1
    head["widths"][0, : len(widths)] = widths
    head["kind"] = STEP if card.action.kind == "step" else INCREMENTS
    head["step_ratio_max"] = card.action.step_ratio_max
    head["anchored"] = card.action.anchor == "landscape"
    head["increments"][0, : len(card.action.increments)] = card.action.increments
    head["period_ns"] = round(card.action.period_seconds * 1e9)
    head["follow_share"] = card.action.followed
    head["hold_ratio"] = card.action.held_within
    return head


@kernel
def act(
    head: Any, weights: NDArray[np.float32], inputs: NDArray[np.float64], activations: NDArray[np.float32], anchor: float, best: float
) -> float:
    """Ratio the policy wants, from normalised `inputs`, NaN where it has no score to go by; `activations` [2, UNITS_MAX] is scratch."""
    for feature in range(head.features):
        activations[0, feature] = np.float32(inputs[feature])
    row = forward(head, weights, activations)
    if head.kind == STEP:
        start = best if head.anchored else anchor
        return float(start + head.step_ratio_max * np.tanh(float(activations[row, 0])))
    choice = 0
    for output in range(head.widths[head.layers]):
        if activations[row, output] > activations[row, choice]:
            choice = output
    if math.isnan(activations[row, choice]):  # the first score, which nothing exceeds: no choice at all
        return np.nan
    increments = head.increments
    return float(anchor + increments[choice])


@kernel
def forward(head: Any, weights: NDArray[np.float32], activations: NDArray[np.float32]) -> int:
    """Run the network from row 0 of `activations`; returns the row that holds the outputs."""
    widths = head.widths
    place, row = 2 * head.features, 0
    for layer in range(head.layers):
        inputs, units = widths[layer], widths[layer + 1]
        source, target = activations[row], activations[1 - row]
        bias = weights[place + inputs * units : place + inputs * units + units]
        for unit in range(units):
            target[unit] = bias[unit]
        for line in range(inputs):
            value, line_weights = source[line], weights[place + line * units : place + (line + 1) * units]
            for unit in range(units):
                target[unit] += line_weights[unit] * value
        if layer < head.layers - 1:
            _tanh(target, units)
        place += (inputs + 1) * units
        row = 1 - row
    return row


@kernel
def _tanh(values: NDArray[np.float32], count: int) -> None:
    """In place, to 1e-6: Lambert's continued fraction at an eighth of the argument, then three doublings.

    tanh(2y) = 2 tanh(y) / (1 + tanh(y)^2). Divisions alone, so that the loop runs on many values at once.
    """
    one, two, three, five, seven = np.float32(1), np.float32(2), np.float32(3), np.float32(5), np.float32(7)
    for unit in range(count):
        y = min(max(values[unit], np.float32(-10)), np.float32(10)) * np.float32(0.125)
        square = y * y
        t = y / (one + square / (three + square / (five + square / seven)))
        t = two * t / (one + t * t)
        t = two * t / (one + t * t)
        values[unit] = two * t / (one + t * t)


def feature_shares(frozen: FrozenPolicy, inputs: NDArray[np.float64]) -> dict[str, float]:
    """How much each feature moves the output: gradient x (input - mean), in ratio for a step, else of the chosen score."""
    values = [inputs[: len(frozen.policy.card.features)]]
    for weight, bias in frozen.policy.layers[:-1]:
        values.append(np.tanh(weight @ values[-1] + bias))
    weight, bias = frozen.policy.layers[-1]
    outputs = weight @ values[-1] + bias
    chosen = int(np.argmax(outputs))
    action = frozen.policy.card.action
    gradient = weight[chosen] * (action.step_ratio_max * (1.0 - np.tanh(outputs[0]) ** 2) if action.kind == "step" else 1.0)
    for (weight, _), hidden in zip(frozen.policy.layers[-2::-1], values[:0:-1], strict=True):
        gradient = (gradient * (1.0 - hidden**2)) @ weight
    return {name: float(share) for name, share in zip(frozen.policy.card.features, gradient * values[0], strict=True)}
