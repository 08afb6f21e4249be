"""What a decision costs: the whole of it in one call, beside the same network in eager torch.

A decision is everything from a node's observation to the guard's target: filling the record, features, base policy,
residual adapter, recovery, guard. The base decides in every call here; on a node it does so every few seconds.
The shadow (B7, and B5 beside it) is measured by itself.
"""

import gc
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.artifacts.card import Action, Card
from agents.artifacts.policy_file import read_policy, write_policy
from agents.artifacts.shipped import shipped_policy
from agents.controller.baselines.b5 import B5
from agents.controller.baselines.b7 import B7
from agents.controller.decide import DECISION, RULES, decide_first, new_memories
from agents.controller.features import HELM
from agents.controller.frozen import ACTIVATIONS_SHAPE, FrozenPolicy, forward, freeze
from agents.controller.guard import Guard, GuardInputs, rails_record
from agents.controller.interface import Controller, Observation
from agents.controller.moment import fill, new_moments
from agents.controller.three_layers import ThreeLayers
from agents.numerics.jit import kernel
from agents.wire.messages import GuardRails
from helmctl.bench.report import Result, Say, ratio_of, result_of

CALLS_MIN = 200_000  # over all runs: a 99th percentile of the slow calls needs many of them
WARM_CALLS = 2_000
TORCH_CALLS, RULE_CALLS = 5_000, 1_000  # per run
_OBSERVATIONS = 64  # different moments, so that nothing is fast only because it repeats


def measure(runs: int, say: Say) -> list[Result]:
    """Microseconds per decision and per network, and their ratio run by run."""
    policy, observations = _policy(say), _observations()
    rails = GuardRails()
    decide, torch_forward, difference = _decision(policy, rails, observations), *_torch(policy)
    kinds: dict[str, tuple[Callable[[int], object], int]] = {
        "decision": (decide, -(-CALLS_MIN // runs)),
        "decision_torch_eager": (torch_forward, TORCH_CALLS),
        "decision_on_node": (_on_node(policy, rails, observations), TORCH_CALLS),
        "shadow": (_rule(B5(rails), observations), RULE_CALLS),
        "shadow_b7": (_rule(B7(rails), observations), RULE_CALLS),
    }
    times: dict[str, list[NDArray[np.float64]]] = {name: [] for name in kinds}
    for run in range(runs):
        say(f"run {run + 1} of {runs}")
        for name, (call, count) in kinds.items():
            times[name].append(_timed(call, count))
    pairs = [
        (float(np.median(slow)), float(np.median(fast)))
        for slow, fast in zip(times["decision_torch_eager"], times["decision"], strict=True)
    ]
    return [
        *(_summary(f"{name}_us", found) for name, found in times.items()),
        ratio_of("speedup_over_torch", pairs),
        Result("decision_calls", float(sum(each.shape[0] for each in times["decision"])), "calls"),
        Result("torch_difference", difference, "score"),
    ]


def _summary(name: str, times_us: list[NDArray[np.float64]]) -> Result:
    return result_of(name, [float(np.median(each)) for each in times_us], "us", float(np.quantile(np.concatenate(times_us), 0.99)))


def _timed(call: Callable[[int], object], count: int) -> NDArray[np.float64]:
    """Microseconds of each call, the clock's own 0.1 us included; the collector rests, as on a node between ticks."""
    for turn in range(min(WARM_CALLS, count)):
        call(turn)
    clock, spent = time.perf_counter_ns, np.empty(count)
    gc.collect()
    gc.disable()
    try:
        for turn in range(count):
            started = clock()
            call(turn)
            spent[turn] = clock() - started
    finally:
        gc.enable()
    return spent / 1e3


def _policy(say: Say) -> FrozenPolicy:
    """The shipped policy, or random weights of the same shape while there is none: they cost the same."""
    file = shipped_policy("helm")
    if file is not None:
        return freeze(read_policy(file.weights, file.card))
    say("no trained policy is shipped: random weights, 20 features, two layers of 64")
    action = Action(kind="step", period_seconds=5.0, step_ratio_max=0.1)
    zeros, ones = [0.0] * len(HELM), [1.0] * len(HELM)
    card = Card(
        format_version=1,
        name="random",
        features=list(HELM),
        mean=zeros,
        scale=ones,
        hidden=[64, 64],
        action=action,
        seed=0,
        git_revision="",
    )
    chance, arrays = np.random.default_rng(0), {}
    for layer, (inputs, units) in enumerate(pairwise([len(HELM), 64, 64, 1])):
        arrays[f"layer{layer}.weight"] = (chance.normal(size=(units, inputs)) / np.sqrt(inputs)).astype(np.float32)
        arrays[f"layer{layer}.bias"] = np.zeros(units, np.float32)
    file = write_policy(arrays, card)
    return freeze(read_policy(file.weights, file.card))


def _observations() -> list[Observation]:
    """A node's moments, five seconds apart, with noise in every signal."""
    chance, grid = np.random.default_rng(1), np.linspace(0.0, 1.0, 129)
    return [_observation(turn, chance, grid) for turn in range(_OBSERVATIONS)]


def _observation(turn: int, chance: np.random.Generator, grid: NDArray[np.float64]) -> Observation:
    emb, kv = 900.0 * (1.0 - np.exp(-chance.uniform(2, 5) * grid)), 800.0 * (1.0 - np.exp(-chance.uniform(2, 5) * grid))
    rate = float(chance.uniform(90, 110))
    return Observation(
        now_ns=(turn + 1) * 5_000_000_000,
        emb_ratio=float(chance.uniform(0.4, 0.6)),
        pool_bytes=80 * 10**9,
        requests_per_second_fast=float(chance.normal(rate, 6.0)),
        requests_per_second_slow=rate,
        emb_hit_ratio=float(chance.uniform(0.8, 0.9)),
        kv_hit_ratio=float(chance.uniform(0.5, 0.7)),
        utilisation=float(chance.uniform(0.7, 0.8)),
        queue_ms=float(chance.uniform(5, 20)),
        latency_ms_p99=float(chance.uniform(30, 40)),
        slo_ms=60.0,
        slo_violation_ratio=0.002,
        tokens_per_request=float(chance.uniform(9_000, 11_000)),
        revisit_ratio=float(chance.uniform(0.3, 0.5)),
        refill_backlog_bytes=10**9,
        refill_bytes_per_second=3.2e9,
        interference_ms_per_byte=1e-8,
        since_last_move_ns=20_000_000_000,
        reuse_age_ns=500_000_000,
        capacity_ratio=grid,
        emb_value=emb,
        kv_value=kv,
        emb_value_total=950.0,
        kv_value_total=900.0,
        emb_bytes_touched_per_second=5e8,
        kv_bytes_touched_per_second=1e10,
        kv_used_ratio=0.98,
        service_ms=7.5,
    )


def _decision(policy: FrozenPolicy, rails: GuardRails, observations: list[Observation]) -> Callable[[int], object]:
    """Observation to target; the base is due in every call."""
    rules, memories = np.zeros(1, RULES), new_memories(1, 0.5)
    rules["rails"], rules["head"] = rails_record(rails)[0], policy.head[0]
    rules["head"]["period_ns"] = 0
    rules["adapter_on"] = rules["recovery_on"] = 1
    moments, decisions, weights = new_moments(1), np.zeros(1, DECISION), policy.weights

    def decide(turn: int) -> None:
        observation = observations[turn % _OBSERVATIONS]
        fill(moments, observation)
        decide_first(rules, weights, memories, moments, observation.emb_value, observation.kv_value, decisions)

    return decide


def _on_node(policy: FrozenPolicy, rails: GuardRails, observations: list[Observation]) -> Callable[[int], object]:
    """As a node does it: the controller's proposal as an object for the record, then the guard common to all methods."""
    layers, guard = ThreeLayers(rails, policy=policy), Guard(rails, 0.02, 0.5)

    def decide(turn: int) -> None:
        observation = observations[turn % _OBSERVATIONS]
        proposal = layers.propose(observation)
        guard.limit(observation.now_ns, GuardInputs(proposal.emb_ratio, None, observation.emb_ratio))

    return decide


def _rule(rule: Controller, observations: list[Observation]) -> Callable[[int], object]:
    return lambda turn: rule.propose(observations[turn % _OBSERVATIONS])


def _torch(policy: FrozenPolicy) -> tuple[Callable[[int], object], float]:
    """The network alone in eager torch, from a NumPy vector to a number; and how far its scores are from the kernel's."""
    import torch

    stages: list[torch.nn.Module] = []
    for weight, bias in policy.policy.layers:
        linear = torch.nn.Linear(weight.shape[1], weight.shape[0])
        linear.weight.data, linear.bias.data = torch.from_numpy(weight.copy()), torch.from_numpy(bias.copy())
        stages += [linear, torch.nn.Tanh()]
    network = torch.nn.Sequential(*stages[:-1])
    inputs = np.random.default_rng(2).normal(size=(_OBSERVATIONS, policy.policy.layers[0][0].shape[1])).astype(np.float32)

    def score(turn: int) -> Any:
        with torch.no_grad():
            return network(torch.from_numpy(inputs[turn % _OBSERVATIONS]))[0].item()

    return score, max(abs(score(turn) - _kernel_score(policy, inputs[turn])) for turn in range(_OBSERVATIONS))


def _kernel_score(policy: FrozenPolicy, inputs: NDArray[np.float32]) -> float:
    activations = np.zeros(ACTIVATIONS_SHAPE, np.float32)
    activations[0, : inputs.shape[0]] = inputs
    return float(activations[_forward_first(policy.head, policy.weights, activations), 0])


@kernel
def _forward_first(heads: NDArray[Any], weights: NDArray[np.float32], activations: NDArray[np.float32]) -> int:
    return forward(heads[0], weights, activations)
