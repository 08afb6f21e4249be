"""Fine-tuning: PPO from a policy that decides already, on what its nodes recorded and on generated streams.

The features keep their frozen statistics, so that only the network changes. Small steps: a good policy is easily unlearned.
"""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import msgspec
import numpy as np
import torch
from stable_baselines3 import PPO

from agents.artifacts.card import Card
from agents.artifacts.policy_file import Policy, PolicyFile, read_policy
from agents.controller.features import FEATURE_SETS
from agents.controller.frozen import freeze
from agents.learning.compare import OPPONENTS, compare, generated_cells
from agents.learning.config import TrainingConfig, load_config
from agents.learning.export import actor_layers, export_policy
from agents.learning.fleet_env import FleetVecEnv, Streams
from agents.learning.recorded import Recorded, read_recorded
from agents.learning.streams import SEED_MIN, TrainingStream, draw_streams
from agents.learning.train import CurvePoint, Trained, improve, new_model
from agents.sim.scenario import Scenario

LEARNING_RATE, CLIP_RANGE = 1e-4, 0.1  # a third and a half of a first training's
RATE_SPREAD = (0.7, 1.3)  # recorded traffic is also played slower and faster than it came
EVALUATION_SEED_MIN = 7_000  # training streams begin at a million, suites and benches below a hundred
REASON_CHARS_MAX = 200  # of why a journal was left out; it is kept in the card
_RECORDED_SEED = 500_000  # away from the generated streams of the same run
# What parts of the work cost beside each other, for a first guess at the time left.
_STEP_COST, _RUN_COST = 0.01, 1.5


class TuneOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much of everything. Streams are generated; every journal brings as many recorded ones again, shared among them."""

    steps: int = 6_000
    streams: int = 8
    episode_seconds: float = 300.0
    seed: int = 1
    evaluation_seeds: int = 2
    evaluation_seconds: float = 150.0


class Report(NamedTuple):
    """Who is told: a stage with the share of the whole that is done, and every point of the curve."""

    stage: Callable[[str, float], None] = lambda _stage, _share: None
    point: Callable[[CurvePoint], None] = lambda _: None


class Tuned(NamedTuple):
    """A new version and how it compares."""

    file: PolicyFile
    evaluation: dict[str, Any]


def tune(
    parent: PolicyFile,
    journals: list[Path],
    options: TuneOptions,
    report: Report,
    cancelled: Callable[[], bool],
    config: TrainingConfig | None = None,
) -> Tuned | None:
    """The whole of it: read journals, tune, compare; `None` when cancelled. A journal of no use is left out and named."""
    policy = read_policy(parent.weights, parent.card)
    chosen = tuning_config(policy.card, options, config)
    tuning_share = _tuning_share(chosen, options)
    with TemporaryDirectory(prefix="helm-tune-") as folder:
        recorded, left_out = read_journals(journals, Path(folder), report, cancelled)
        if cancelled():
            return None
        trained = improve_on(policy, chosen, mixed_streams(chosen, recorded, options.seed), options.seed, report, cancelled, tuning_share)
        if cancelled():
            return None
        lineage = {"parent": policy.card.digest, "journals": [each.name for each in recorded], "journals_left_out": left_out}
        file = _export(trained, chosen, options.seed, lineage)
        evaluation = compare(
            freeze(read_policy(file.weights, file.card)),
            freeze(policy),
            comparison_cells(chosen, recorded, options.evaluation_seconds),
            [EVALUATION_SEED_MIN + number for number in range(options.evaluation_seeds)],
            lambda share: report.stage("comparing with parent, B5 and B7", tuning_share + (1.0 - tuning_share) * share),
            cancelled,
        )
    if evaluation is None:
        return None
    return Tuned(file, evaluation | {"journals_left_out": left_out})


def read_journals(
    journals: list[Path], folder: Path, report: Report, cancelled: Callable[[], bool]
) -> tuple[list[Recorded], list[dict[str, str]]]:
    """What can be learned from, and name and reason of what cannot: an idle node's journal must not end a run that needs none."""
    recorded: list[Recorded] = []
    left_out: list[dict[str, str]] = []
    for number, path in enumerate(journals):
        report.stage(f"reading journal {number + 1} of {len(journals)}", 0.0)
        try:
            found = read_recorded(path, folder, cancelled)
        except (ValueError, TypeError, IndexError, OSError) as error:  # of no use, damaged, or deleted meanwhile: its node makes room
            left_out.append({"name": path.name, "reason": str(error)[:REASON_CHARS_MAX]})
            report.stage(f"left out {path.name}: {error}", 0.0)
            continue
        if found is None:
            break
        recorded.append(found)
    return recorded, left_out


def tuning_config(card: Card, options: TuneOptions, config: TrainingConfig | None = None) -> TrainingConfig:
    """The shipped configuration of the parent's features (or `config`), with the parent's network and action."""
    variant = ("helm", "paper")[FEATURE_SETS.index(tuple(card.features))]
    base = config or load_config(variant)
    episodes = base.episodes.of_size(base.episodes.nodes)
    if config is None:
        episodes = msgspec.structs.replace(episodes, streams=options.streams, seconds=options.episode_seconds)
    ppo = msgspec.structs.replace(base.ppo, steps=options.steps, learning_rate=LEARNING_RATE, clip_range=CLIP_RANGE)
    name = card.name if card.name.isidentifier() else variant
    return msgspec.structs.replace(base, name=name, hidden=card.hidden, action=card.action, episodes=episodes, ppo=ppo)


def mixed_streams(config: TrainingConfig, recorded: list[Recorded], seed: int) -> list[TrainingStream]:
    """Generated streams, and as many replays of the journals in turn, at loads around the recorded ones."""
    generated = draw_streams(config.episodes, seed)
    if not recorded:
        return generated
    return generated + [_replayed(config, recorded[number % len(recorded)], number, seed) for number in range(config.episodes.streams)]


def _replayed(config: TrainingConfig, source: Recorded, number: int, seed: int) -> TrainingStream:
    episodes = config.episodes
    stream_seed = SEED_MIN + _RECORDED_SEED + seed * 100 + number
    chance = np.random.default_rng(stream_seed)
    scenario = Scenario(
        profile=source.profile,
        workload="recorded",
        trace=str(source.learned),
        admission=episodes.admissions[number % len(episodes.admissions)],
        nodes=episodes.nodes,
        rate_per_second=source.rate_per_node * episodes.nodes * float(chance.uniform(*RATE_SPREAD)),
        duration_seconds=episodes.seconds,
        warmup_seconds=episodes.hold_seconds,
        seed=stream_seed,
        settled=episodes.settled,
    )
    return TrainingStream(scenario, float(chance.uniform(*episodes.start_ratio)))


def improve_on(
    policy: Policy,
    config: TrainingConfig,
    streams: list[TrainingStream],
    seed: int,
    report: Report = Report(),  # noqa: B008  a tuple of constants
    cancelled: Callable[[], bool] = lambda: False,
    share: float = 1.0,
) -> Trained:
    """PPO from the policy's weights; a cancelled run returns what it has. `share` of the whole is this part's."""
    torch.set_num_threads(1)  # networks this small only lose by sharing
    mean, scale = np.asarray(policy.card.mean, np.float32), np.asarray(policy.card.scale, np.float32)
    statistics = np.concatenate([mean, np.float32(1.0) / scale])
    report.stage("starting fleets", 0.0)
    model = new_model(config, FleetVecEnv(config, Streams(config, streams), statistics, seed), seed)
    adopt(model, policy)

    def note(point: CurvePoint) -> None:
        report.stage(f"tuning, {point.steps} of {config.ppo.steps} steps", share * min(1.0, point.steps / config.ppo.steps))
        report.point(point)

    curve = improve(model, config, lambda _: None, cancelled, note)
    training = {
        "method": "PPO from its parent",
        "steps": curve[-1].steps if curve else 0,
        "reward_first": curve[0].reward_mean if curve else None,
        "reward_last": curve[-1].reward_mean if curve else None,
        "streams": len(streams),
        "streams_recorded": sum(stream.scenario.trace is not None for stream in streams),
    }
    return Trained(model, mean, scale, curve, training)


def adopt(model: PPO, policy: Policy) -> None:
    """Give the actor the policy's weights; the critic learns from the start."""
    with torch.no_grad():
        for layer, (weight, bias) in zip(actor_layers(model), policy.layers, strict=True):
            layer.weight.copy_(torch.from_numpy(np.array(weight)))
            layer.bias.copy_(torch.from_numpy(np.array(bias)))


def comparison_cells(config: TrainingConfig, recorded: list[Recorded], seconds: float) -> dict[str, Scenario]:
    """Generated cells under the shipped admission, and what the journals held out."""
    window = {"duration_seconds": seconds, "warmup_seconds": min(30.0, seconds / 4), "settled": config.episodes.settled}
    cells = {
        scenario.workload: msgspec.structs.replace(scenario, **window)
        for scenario in generated_cells(config)
        if scenario.admission == config.episodes.admissions[0]
    }
    template = next(iter(cells.values()))
    for source in recorded:
        if source.held_out is not None:
            cells[f"recorded/{source.name}"] = msgspec.structs.replace(
                template,
                profile=source.profile,
                workload="recorded",
                trace=str(source.held_out),
                rate_per_second=source.rate_per_node * config.episodes.nodes,
            )
    return cells


def _tuning_share(config: TrainingConfig, options: TuneOptions) -> float:
    """Of the whole time, roughly; the rest is the comparison."""
    tuning = config.ppo.steps * _STEP_COST * options.episode_seconds / 300.0 + config.episodes.streams * _RUN_COST
    comparing = 3 * options.evaluation_seeds * (1 + len(OPPONENTS)) * _RUN_COST * options.evaluation_seconds / 300.0
    return tuning / (tuning + comparing)


def _export(trained: Trained, config: TrainingConfig, seed: int, lineage: dict[str, Any]) -> PolicyFile:
    """The comparison stands beside the version, not in its card: it is made of these very bytes."""
    return export_policy(
        trained.model, config, trained.mean, trained.scale, seed=seed, git_revision="", training=trained.training | lineage, evaluation={}
    )
