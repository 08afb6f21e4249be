"""`helmctl policy` beside `train`, against the real API in one process."""

import json
from pathlib import Path
from typing import Any

import pytest

from apps.fleet.models import Node
from apps.policies.models import PolicyVersion, TrainingRun
from tests.apps.conftest import make_node, people  # noqa: F401 - fixtures
from tests.apps.policies.files import tiny_file
from tests.helmctl.cli.test_node import Run, helmctl  # noqa: F401


def test_a_version_goes_out_and_comes_in_again_elsewhere(helmctl: Run, tmp_path: Path) -> None:  # noqa: F811
    code, out, _ = helmctl("policy", "export", "helm-v1", "--out", str(tmp_path / "out"), who="viewer")
    weights, card = out.split()
    assert (code, json.loads(Path(card).read_text())["name"]) == (0, "helm")
    assert helmctl("policy", "import", weights)[0] == 1  # these bytes are here already
    PolicyVersion.objects.filter(name="helm").delete()
    code, out, _ = helmctl("policy", "import", weights)
    assert (code, out.split()[:2]) == (0, ["helm", "v1"])


def test_the_list_shows_state_lineage_and_comparison(helmctl: Run) -> None:  # noqa: F811
    against = {
        "parent": {"mean": -0.031, "low": -0.04, "high": -0.02, "pairs": 6},
        "b5": {"mean": 0.002, "low": None, "high": None, "pairs": 1},
    }
    PolicyVersion.objects.filter(name="paper").update(parent=PolicyVersion.objects.get(name="helm"), evaluation={"against": against})
    code, out, _ = helmctl("policy", "list", who="viewer")
    paper = next(line for line in out.splitlines() if line.startswith("paper v1"))
    assert code == 0
    assert all(part in paper for part in ("usable", "helm v1", "-3.1% [-4.0%, -2.0%]", "+0.2%"))


def test_a_name_may_have_its_own_v(helmctl: Run) -> None:  # noqa: F811
    PolicyVersion.objects.filter(name="helm").update(name="my-variant")
    code, out, _ = helmctl("policy", "show", "my-variant-v1", who="viewer")
    assert (code, json.loads(out)["label"]) == (0, "my-variant v1")


def test_nodes_are_told_and_taken_back(helmctl: Run, make_node: Any) -> None:  # noqa: F811
    make_node("node-0")
    assert helmctl("policy", "use", "helm-v1", "--node", "node-0", "--active", "--reason", "a try")[0] == 0
    node = Node.objects.get()
    assert (node.policy_digest, node.controller) == (PolicyVersion.objects.get(name="helm").digest, "active")
    code, out, _ = helmctl("policy", "rollback", "--all", "--reason", "slower")
    assert (code, out.split()) == (0, ["node-0", "back", "to", "own", "controller,", "active"])
    helmctl("policy", "use", "paper-v1", "--all", "--reason", "another")
    helmctl("policy", "use", "own", "--all", "--reason", "enough")
    assert Node.objects.get().policy_digest == ""


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["use", "helm-v1", "--reason", "why"], 2, "--node"),
        (["use", "helm-v1", "--all", "--node", "a", "--reason", "why"], 2, "--all"),
        (["use", "helm-v9", "--all", "--reason", "why"], 2, "helm-v9"),
        (["use", "ffffffff", "--all", "--reason", "why"], 1, "unknown_policy"),
        (["import", "missing.safetensors"], 2, "missing"),
        (["tune", "--steps", "900000", "--no-wait"], 2, "steps"),
        (["cancel"], 1, "no training run is open"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(helmctl: Run, arguments: list[str], code: int, said: str) -> None:  # noqa: F811
    found, _, err = helmctl("policy", *arguments)
    assert found == code
    assert said in err
    assert err.count("\n") == 1


def test_a_file_that_is_no_policy_is_refused_with_the_servers_words(helmctl: Run, tmp_path: Path) -> None:  # noqa: F811
    file = tiny_file()
    (tmp_path / "p.safetensors").write_bytes(file.weights[:90])
    (tmp_path / "p.json").write_bytes(file.card)
    code, _, err = helmctl("policy", "import", str(tmp_path / "p.safetensors"))
    assert code == 2
    assert "artefact_truncated" in err


def test_a_run_is_started_listed_and_cancelled(helmctl: Run) -> None:  # noqa: F811
    code, out, _ = helmctl("policy", "tune", "--steps", "100", "--no-wait")
    run = TrainingRun.objects.get()
    assert (code, out.split()) == (0, [str(run.uid), "queued"])
    assert isinstance(run.options["seed"], int)
    assert str(run.uid) in helmctl("policy", "runs", who="viewer")[1]
    assert helmctl("policy", "cancel")[1].split() == [str(run.uid), "cancelled"]
    assert helmctl("policy", "tune", who="viewer")[0] == 1
    helmctl("policy", "tune", "--seed", "7", "--no-wait")
    assert TrainingRun.objects.latest("id").options["seed"] == 7
