"""Fine-tuning in small: it starts where its parent is, learns from journals too, and is compared before it counts."""

import re
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import msgspec
import numpy as np
import pytest
import torch

from agents.artifacts.policy_file import PolicyFile, read_policy
from agents.controller.frozen import freeze
from agents.learning.compare import Pair, change, compare, judged
from agents.learning.config import load_config
from agents.learning.export import actor_outputs
from agents.learning.fleet_env import FleetVecEnv, Streams
from agents.learning.recorded import _new_events, read_recorded
from agents.learning.streams import draw_streams
from agents.learning.train import CurvePoint, new_model
from agents.learning.tune import Report, TuneOptions, adopt, improve_on, mixed_streams, read_journals, tune, tuning_config
from agents.sim.scenario import Scenario
from agents.workloads import journal
from agents.workloads.trace_file import read_records
from tests.agents.controller.policies import card, random_file
from tests.agents.learning import tiny

OPTIONS = TuneOptions(steps=10, evaluation_seeds=1, evaluation_seconds=12.0)
CONFIG = msgspec.structs.replace(
    tiny.helm(),
    episodes=msgspec.structs.replace(tiny.helm().episodes, workloads={"steady": 10.0}, admissions=("shipped",), nodes=1, streams=1),
)
PARENT = random_file(card(hidden=[8], action=tiny.helm().action, name="tiny"))


def recorded_journal(folder: Path, requests: int = 60, name: str = "7", profile: str = "cpu-tiny") -> Path:
    """A node of the tiny profile that served five users in turn, ten requests a second; each brings two new events."""
    path = folder / f"{name}.journal"
    known: dict[str, Any] = {"journal_version": 1, "wire_version": 1, "config": {}, "salt_digest": "ab"}
    header = journal.Header(name="node-0", profile=profile, started_unix_ns=1_700_000_000 * 10**9, **known)
    content = [journal.encode_record(header)]
    for number in range(requests):
        user, visit = number % 5 + 1, number // 5
        history = np.arange(user * 20, user * 20 + 16 + 2 * visit, dtype=np.int64)
        empty = np.empty(0, np.int64)
        parts = [np.array([user], np.uint64), np.array([history.shape[0]]), empty, empty, history, np.array([0, history.shape[0]])]
        batch = [journal.pack(part) for part in parts]
        content.append(journal.encode_record(journal.Admit(now_ns=5 * 10**9 + number * 10**8, batch=batch, ticket=number, digest=0)))
    path.write_bytes(b"".join(content))
    return path


# --- recorded traffic


def test_a_request_brings_what_the_history_is_longer_by() -> None:
    before = np.array([1, 2, 3, 4, 5])
    assert _new_events(before, np.array([2, 3, 4, 5, 6, 7])).tolist() == [6, 7]
    assert _new_events(before, before).tolist() == []
    assert _new_events(before, np.array([8, 9])).tolist() == [8, 9]
    assert _new_events(None, np.arange(100)).tolist() == list(range(36, 100))


def test_a_journal_becomes_a_trace_to_learn_from_and_one_held_out(tmp_path: Path) -> None:
    found = read_recorded(recorded_journal(tmp_path, 100), tmp_path)
    assert found is not None
    assert (found.profile, found.rate_per_node) == ("cpu-tiny", pytest.approx(10.0, rel=0.02))
    assert found.held_out is not None
    learned, held_out = list(read_records(found.learned)), list(read_records(found.held_out))
    assert (len(learned), len(held_out)) == (70, 30)
    assert (learned[0].user, learned[0].items) == (1, list(range(20, 36)))
    assert learned[5].items == [36, 37]
    assert learned[5].ts_ns - learned[0].ts_ns == 5 * 10**8


def test_a_journal_too_short_to_tell_anything_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"7\.journal: 3 requests"):
        read_recorded(recorded_journal(tmp_path, 3), tmp_path)


def test_of_a_long_journal_the_newest_requests_are_learned_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agents.learning.recorded.REQUESTS_MAX", 70)
    path = recorded_journal(tmp_path, 100)
    found = read_recorded(path, tmp_path)
    assert found is not None
    assert found.held_out is not None
    served = [*read_records(found.learned), *read_records(found.held_out)]
    assert (len(served), found.rate_per_node) == (70, pytest.approx(10.0, rel=0.02))
    began_ns = journal.read_header(path).started_unix_ns
    assert (served[0].ts_ns, served[-1].ts_ns) == (began_ns + 30 * 10**8, began_ns + 99 * 10**8)
    assert served[0].items == [46, 47]  # the seventh visit of user 1: what the six before brought is known


def test_a_part_that_has_just_begun_is_read_behind_the_one_before_it(tmp_path: Path) -> None:
    whole = recorded_journal(tmp_path, 100, "whole")
    header, *records = journal.read_records(whole)
    assert isinstance(header, journal.Header)
    for part, own in ((1, records[:95]), (2, records[95:])):
        content = [msgspec.structs.replace(header, part=part), *own, journal.End(reason=journal.CONTINUED)]
        journal.part_path(tmp_path / "7.journal", part).write_bytes(b"".join(map(journal.encode_record, content)))
    found, expected = (read_recorded(tmp_path / name, tmp_path) for name in ("7.p2.journal", "whole.journal"))
    assert found is not None
    assert expected is not None
    assert (found.name, found.rate_per_node) == ("7.p2.journal", expected.rate_per_node)
    assert list(read_records(found.learned)) == list(read_records(expected.learned))
    (tmp_path / "7.journal").unlink()
    with pytest.raises(ValueError, match=r"7\.p2\.journal: 5 requests"):
        read_recorded(tmp_path / "7.p2.journal", tmp_path)


def useless(folder: Path) -> list[tuple[Path, str]]:
    """Journals that nothing can be learned from, each with what is said of it."""
    empty, damaged, deleted = (folder / f"{name}.journal" for name in ("empty", "damaged", "deleted"))
    empty.touch()
    damaged.write_bytes(recorded_journal(folder, 40, "damaged").read_bytes() + journal.LENGTH.pack(3) + b"abc")
    return [
        (empty, "does not begin with a header"),
        (recorded_journal(folder, 3, "short"), "3 requests, at least 20 are needed"),
        (damaged, "does not decode"),
        (recorded_journal(folder, 40, "foreign", "gone-gpu"), "unknown 'gone-gpu'"),
        (deleted, "No such file"),
    ]


def test_a_journal_of_no_use_is_left_out_with_the_reason_and_the_others_are_read(tmp_path: Path) -> None:
    stages: list[str] = []
    bad = useless(tmp_path)
    good = recorded_journal(tmp_path)
    journals = [path for path, _ in bad]
    recorded, left_out = read_journals([*journals, good], tmp_path, Report(lambda stage, _: stages.append(stage)), lambda: False)
    assert [each.name for each in recorded] == ["7.journal"]
    assert [each["name"] for each in left_out] == [path.name for path in journals]
    for each, (path, said) in zip(left_out, bad, strict=True):
        assert said in each["reason"]
        assert any(stage.startswith(f"left out {path.name}: ") for stage in stages)


def test_who_cancels_while_a_journal_is_read_gets_no_complaint_about_its_length(tmp_path: Path) -> None:
    asked = iter([False] * 6)
    assert read_recorded(recorded_journal(tmp_path), tmp_path, lambda: next(asked, True)) is None
    assert tune(PARENT, [recorded_journal(tmp_path, 3)], OPTIONS, Report(), lambda: True, CONFIG) is None


# --- tuning


@pytest.mark.parametrize("variant", ["helm", "paper"])
def test_what_is_tuned_on_are_fleets_of_one_size_however_many_streams_and_sizes_the_parent_was_taught_on(variant: str) -> None:
    """PPO steps its fleets side by side, a slot a node: one of another size would not fit."""
    policy = read_policy(PARENT.weights, PARENT.card)
    config = tuning_config(policy.card, TuneOptions(streams=60))
    assert {stream.scenario.nodes for stream in mixed_streams(config, [], 1)} == {2}
    assert {stream.scenario.nodes for stream in draw_streams(load_config(variant).episodes.of_size(1), 1)} == {1}


def test_tuning_begins_as_the_parent_acts() -> None:
    policy = read_policy(PARENT.weights, PARENT.card)
    config = tuning_config(policy.card, OPTIONS, CONFIG)
    statistics = np.concatenate([policy.card.mean, 1.0 / np.array(policy.card.scale)]).astype(np.float32)
    model = new_model(config, FleetVecEnv(config, Streams(config, draw_streams(config.episodes, 1)), statistics, 1), 1)
    adopt(model, policy)
    inputs = np.random.default_rng(1).normal(size=(5, 20)).astype(np.float32)
    (first, bias), (last, last_bias) = policy.layers
    expected = np.tanh(inputs @ first.T + bias) @ last.T + last_bias
    np.testing.assert_allclose(actor_outputs(model, torch.from_numpy(inputs)).detach().numpy(), expected, atol=1e-5)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> tuple[PolicyFile, dict[str, object], list[CurvePoint], list[float]]:
    points: list[CurvePoint] = []
    shares: list[float] = []
    report = Report(lambda _, share: shares.append(share), points.append)
    folder = tmp_path_factory.mktemp("journals")
    journals = [recorded_journal(folder, 3, "idle"), recorded_journal(folder, 100)]
    done = tune(PARENT, journals, OPTIONS, report, lambda: False, CONFIG)
    assert done is not None
    return done.file, done.evaluation, points, shares


def test_the_new_version_knows_its_parent_its_streams_and_its_features(tuned: tuple[PolicyFile, dict, list, list]) -> None:
    described = read_policy(tuned[0].weights, tuned[0].card).card
    assert described.training["parent"] == PARENT.digest
    assert (described.training["steps"], described.training["streams"], described.training["streams_recorded"]) == (10, 2, 1)
    assert described.training["journals"] == ["7.journal"]
    assert [each["name"] for each in described.training["journals_left_out"]] == ["idle.journal"]
    assert described.mean == card().mean
    assert described.digest != PARENT.digest


def test_progress_and_curve_are_told_as_they_come(tuned: tuple[PolicyFile, dict, list, list]) -> None:
    _, _, points, shares = tuned
    assert [point.steps for point in points] == [5, 10]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_it_is_compared_with_parent_b5_and_b7_on_generated_and_held_out_streams(tuned: tuple[PolicyFile, dict, list, list]) -> None:
    evaluation = tuned[1]
    assert set(evaluation["against"]) == {"parent", "b5", "b7"}
    assert set(evaluation["cells"]) == {"steady", "recorded/7.journal"}
    assert set(evaluation["cells"]["steady"]) == {"candidate", "parent", "b5", "b7"}
    assert evaluation["verdict"] in {"usable", "rejected"}
    assert evaluation["journals_left_out"] == [{"name": "idle.journal", "reason": ANY}]


def test_a_cancelled_tuning_leaves_nothing() -> None:
    assert tune(PARENT, [], OPTIONS, Report(), lambda: True, CONFIG) is None


def test_a_loss_is_told_from_the_second_update_on() -> None:
    points: list[CurvePoint] = []
    policy = read_policy(PARENT.weights, PARENT.card)
    config = tuning_config(policy.card, msgspec.structs.replace(OPTIONS, steps=20), CONFIG)
    improve_on(policy, config, draw_streams(config.episodes, 1), 1, Report(point=points.append))
    assert points[0].loss is None
    assert points[1].loss is not None


# --- the verdict

CELL = Scenario(
    profile="cpu-tiny", workload="steady", nodes=1, rate_per_second=10.0, duration_seconds=12.0, warmup_seconds=2.0, settled=False
)


def test_a_version_is_its_own_equal() -> None:
    policy = freeze(read_policy(PARENT.weights, PARENT.card))
    found = compare(policy, policy, {"steady": CELL}, [7_000])
    assert found is not None
    assert found["against"]["parent"] == {"mean": 0.0, "low": None, "high": None, "pairs": 1}
    assert found["verdict"] == "usable"


def test_a_version_trained_from_nothing_is_compared_with_the_rules_alone() -> None:
    policy = freeze(read_policy(PARENT.weights, PARENT.card))
    found = compare(policy, None, {"steady": CELL}, [7_000])
    assert found is not None
    assert (found["verdict"], set(found["against"]), set(found["cells"]["steady"])) == ("usable", {"b5", "b7"}, {"candidate", "b5", "b7"})


@pytest.mark.parametrize(
    ("pairs", "usable", "reason"),
    [
        ([Pair(9.0, 10.0), Pair(9.5, 10.0)], True, "-7.5% against"),
        ([Pair(10.05, 10.0), Pair(9.99, 10.0)], True, r"\+0.2% against"),
        ([Pair(10.05, 10.0), Pair(10.06, 10.0)], False, r"\+0.6% against"),
        ([Pair(10.4, 10.0), Pair(9.9, 10.0)], False, r"\+1.5% against"),
        ([Pair(None, 10.0), Pair(1.0, 10.0)], False, "overloaded in 1 of 2"),
        ([Pair(None, None)], False, "no run could be compared"),
    ],
)
def test_what_is_worse_than_its_parent_is_rejected_with_the_reason(pairs: list[Pair], usable: bool, reason: str) -> None:
    found = judged(pairs)
    assert found.usable is usable
    assert re.search(reason, found.reason)


def test_a_change_has_an_interval_once_there_are_two_pairs() -> None:
    assert change([Pair(11.0, 10.0)]) == {"mean": pytest.approx(0.1), "low": None, "high": None, "pairs": 1}
    found = change([Pair(11.0, 10.0), Pair(9.0, 10.0), Pair(None, 10.0)])
    assert (found["pairs"], found["low"] < found["mean"] < found["high"]) == (2, True)
