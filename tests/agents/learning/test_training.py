"""A run in small: deterministic, exported as it acts, and its configuration refused by field."""

import tempfile
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from agents.artifacts.policy_file import PolicyFile, read_policy
from agents.artifacts.shipped import shipped_policy
from agents.controller.frozen import ACTIVATIONS_SHAPE, forward, freeze
from agents.learning.actions import labels_of, wishes_of
from agents.learning.clairvoyant import RATIOS
from agents.learning.config import Imitation, TrainingConfig, decode_config, known_configs, load_config
from agents.learning.export import actor_outputs, export_policy
from agents.learning.streams import draw_streams
from agents.learning.train import Trained, train
from tests.agents.learning import tiny


def exported(trained: Trained, config: TrainingConfig) -> PolicyFile:
    known = {"seed": 1, "git_revision": "test", "training": trained.training, "evaluation": {}}
    return export_policy(trained.model, config, trained.mean, trained.scale, **known)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def trained() -> Trained:
    return train(tiny.helm(), 1)


def test_two_updates_leave_a_curve_of_two_points(trained: Trained) -> None:
    assert [point.steps for point in trained.curve] == [10, 20]
    assert all(np.isfinite(point.reward_mean) for point in trained.curve)


def test_one_seed_gives_the_same_bytes(trained: Trained) -> None:
    assert exported(train(tiny.helm(), 1), tiny.helm()) == exported(trained, tiny.helm())


def test_the_frozen_policy_acts_as_the_trained_one(trained: Trained) -> None:
    file = exported(trained, tiny.helm())
    frozen = freeze(read_policy(file.weights, file.card))
    activations = np.zeros(ACTIVATIONS_SHAPE, np.float32)
    for inputs in np.random.default_rng(1).normal(size=(50, 20)).astype(np.float32):
        activations[0, :20] = inputs
        row = forward(frozen.head[0], frozen.weights, activations)
        expected = actor_outputs(trained.model, torch.from_numpy(inputs[None]))
        assert activations[row, 0] == pytest.approx(float(expected[0, 0].detach()), abs=1e-5)


def test_the_card_says_how_it_was_trained(trained: Trained) -> None:
    card = read_policy(*exported(trained, tiny.helm())[:2]).card
    assert card.training["steps"] == 20
    assert card.training["config"]["episodes"]["workloads"] == {"steady": 10.0, "burst": 10.0}
    assert card.mean == pytest.approx(trained.mean.tolist())


def test_a_run_leaves_no_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    train(tiny.helm(), 1)
    assert list(tmp_path.iterdir()) == []


def test_a_cancelled_run_still_has_a_policy() -> None:
    stopped = train(tiny.paper(), 1, cancelled=lambda: True)
    assert read_policy(*exported(stopped, tiny.paper())[:2]).card.outputs == 7


# --- outputs and what they mean


def test_lessons_on_fleets_of_several_sizes_weigh_alike_and_ppo_meets_those_of_its_own() -> None:
    config = decode_config(
        tiny.TEXT.format(features="helm", action=tiny.STEP).replace("nodes = 2", "nodes = 2\nlesson_nodes = [2, 4]"), "tiny"
    )
    config = msgspec.structs.replace(
        config, episodes=msgspec.structs.replace(config.episodes, streams=4), imitation=Imitation(rule="clairvoyant", passes=1)
    )
    assert [stream.scenario.nodes for stream in draw_streams(config.episodes, 1)] == [2, 2, 4, 4]
    trained = train(config, 1)
    assert trained.training["imitation_decisions"] == 4 * 2 * config.decisions * len(RATIOS)
    assert trained.training["steps"] == 20


def test_a_step_starts_at_the_best_split_and_ends_at_most_a_step_away() -> None:
    action = tiny.helm().action
    wishes = wishes_of(action, np.array([[0.0], [50.0]]), np.array([0.2, 0.2]), np.array([0.5, 0.5]))
    assert wishes.tolist() == pytest.approx([0.5, 0.6])


def test_a_label_leads_back_to_the_rules_wish() -> None:
    action, present, best = tiny.helm().action, np.array([0.45, 0.30]), np.array([0.50, 0.50])
    labels = labels_of(action, np.array([0.45, 0.50]), present, best)
    assert wishes_of(action, np.arctanh(labels)[:, None], present, best).tolist() == pytest.approx([0.45, 0.50])


def test_the_nearest_increment_stands_for_a_rules_wish() -> None:
    labels = labels_of(tiny.paper().action, np.array([0.9, 0.505, 0.475]), np.full(3, 0.5), np.full(3, 0.5))
    assert labels.tolist() == [6, 3, 2]


# --- configurations


def test_the_shipped_configurations_are_the_two_variants() -> None:
    assert known_configs() == ["helm", "paper"]
    assert load_config("paper").action.increments == [-0.06, -0.04, -0.02, 0.0, 0.02, 0.04, 0.06]


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('name = "tiny"', "", "name"),
        ("nodes = 2", "nodes = 0", "nodes"),
        ("nodes = 2", "nodes = 2\nlesson_nodes = [2, 0]", "lesson_nodes"),
        ("nodes = 2", "nodes = 2\nlesson_nodes = [3]", "lesson_nodes"),
        ("steps = 20", 'steps = "many"', "steps"),
        ("seconds = 12.0", "seconds = 1.0", "seconds"),
        ('rule = "b5"', 'rule = "b9"', "rule"),
        ("hidden = [8]", "hidden = [8]\nlayers = 3", "layers"),
        ("hidden = [8]", "hidden = [8", "tiny.toml"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused_by_its_field(old: str, new: str, named: str) -> None:
    text = tiny.TEXT.format(features="helm", action=tiny.STEP)
    assert old in text
    with pytest.raises(ValueError, match=named):
        decode_config(text.replace(old, new), "tiny.toml")


@pytest.mark.parametrize("name", ["helm", "paper"])
def test_the_shipped_policies_can_be_read_and_say_how_they_were_trained(name: str) -> None:
    file = shipped_policy(name)
    assert file is not None
    card = freeze(read_policy(file.weights, file.card)).policy.card
    assert (card.name, tuple(card.features)) == (name, load_config(name).feature_names)
    assert {"method", "steps"} <= set(card.training)
    assert set(card.evaluation["against"]) == {"b5", "b7"}
