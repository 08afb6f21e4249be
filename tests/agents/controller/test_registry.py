import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from types import ModuleType

import pytest

from agents.artifacts.policy_file import read_card
from agents.artifacts.shipped import shipped_policy
from agents.controller import registry
from agents.controller.baselines.b5 import B5
from agents.controller.baselines.burst import Burst
from agents.controller.interface import Observation, Proposal
from agents.controller.registry import known_controllers, make_controller, pinned, uses_cluster_reuse
from agents.controller.shadow import Shadowed
from agents.wire.messages import GuardRails
from tests.agents.controller.observations import observe, rising

RAILS = GuardRails()
ROOT = Path(__file__).resolve().parents[3]
STRANGER = '''"""Two hundredths of the pool to whichever cache hits less."""

from agents.controller.interface import Observation, Proposal
from agents.wire.messages import GuardRails


class Halves:
    """Constructed with the guard rails; told an observation every `period_ns`."""

    name = "halves"
    period_ns = 5_000_000_000

    def __init__(self, rails: GuardRails) -> None:
        self.rails = rails

    def propose(self, observation: Observation) -> Proposal:
        step = 0.02 if observation.emb_hit_ratio > observation.kv_hit_ratio else -0.02
        return Proposal(observation.emb_ratio - step, "halves", {"towards_kv": step})
'''


class Thirds:
    """A stranger's controller, complete."""

    name = "thirds"
    period_ns = 1_000_000_000

    def __init__(self, rails: GuardRails) -> None:
        self.floor = rails.emb_ratio_min

    def propose(self, observation: Observation) -> Proposal:
        return Proposal(1 / 3, "thirds", {})


@pytest.fixture
def stranger(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("strangers_package")
    module.Thirds = Thirds  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "strangers_package", module)
    entries = [EntryPoint(name, "strangers_package:Thirds", registry.ENTRY_POINT_GROUP) for name in ("thirds", "b5")]
    monkeypatch.setattr(registry, "entry_points", lambda group: EntryPoints(entries).select(group=group))


@pytest.mark.parametrize(
    "name",
    [
        "static-0.50",
        "static-0.35",
        "b5",
        "b5-hits",
        "b5-node-stream",
        "b5-p99",
        "b7",
        "b9",
        "b11",
        "b7+burst",
        "schedule-0:0.50,60:0.35",
        "helm",
        "paper",
        "helm-base",
        "helm-on-hold",
        "helm-on-b7",
        "b5+burst",
        "b5+burst-0.30",
        "static-0.50+burst",
    ],
)
def test_a_name_constructs_the_method_that_bears_it(name: str) -> None:
    controller = make_controller(name, RAILS)
    assert controller.name == name
    proposal = controller.propose(observe(emb_value=rising(0.7, 300.0)))
    assert 0.0 < proposal.emb_ratio < 1.0


def test_rails_reach_the_method() -> None:
    controller = make_controller("b5", GuardRails(emb_ratio_min=0.2, emb_ratio_max=0.6))
    assert controller.propose(observe(emb_value=rising(1.0, 900.0), kv_value=rising(1.0, 1.0))).emb_ratio == pytest.approx(0.6)


@pytest.mark.parametrize("name", ["b6", "", "static", "static-", "static-x", "b5+bursts", "+burst", "B5"])
def test_an_unknown_name_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(ValueError, match=r"controller: unknown .* b5, b5-hits, .*b7, b9, helm, .*paper, static-0\.50"):
        make_controller(name, RAILS)


@pytest.mark.parametrize("name", ["static-1.5", "static-0", "b5+burst-1.00"])
def test_a_ratio_out_of_range_in_a_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="_ratio"):
        make_controller(name, RAILS)


@pytest.fixture
def card(tmp_path: Path) -> Path:
    """The shipped policy, as a training run would leave it."""
    file = shipped_policy("helm")
    assert file is not None
    (tmp_path / "mine.safetensors").write_bytes(file.weights)
    (tmp_path / "mine.json").write_bytes(file.card)
    return tmp_path / "mine.json"


def test_a_policy_from_a_file_decides_in_three_layers_with_a_shadow(card: Path) -> None:
    controller = make_controller(f"policy-{card}", RAILS)
    assert isinstance(controller, Shadowed)
    assert controller.propose(observe()) == make_controller("helm", RAILS).propose(observe())


def test_a_policy_is_found_by_its_weights_too_and_is_the_same_one(card: Path) -> None:
    assert pinned(f"policy-{card.with_suffix('.safetensors')}").partition("#")[2] == pinned(f"policy-{card}").partition("#")[2]
    make_controller(f"policy-{card.with_suffix('.safetensors')}", RAILS)


def test_a_pinned_policy_is_refused_once_its_bytes_are_others(card: Path) -> None:
    name = pinned(f"policy-{card}")
    assert name == f"policy-{card}#{read_card(card.read_bytes()).digest[:12]}"
    assert pinned(name) == name
    make_controller(name, RAILS)
    other = shipped_policy("paper")
    assert other is not None
    card.write_bytes(other.card)
    with pytest.raises(ValueError, match=r"mine\.json is policy [0-9a-f]{12}, not "):
        make_controller(name, RAILS)


def test_a_policy_that_is_not_there_or_is_none_is_refused_by_name(tmp_path: Path, card: Path) -> None:
    with pytest.raises(ValueError, match=r"controller: cannot read .*other\.json: No such file"):
        make_controller(f"policy-{tmp_path / 'other.json'}", RAILS)
    card.write_text("{}")
    with pytest.raises(ValueError, match="artefact_card_invalid"):
        make_controller(f"policy-{card}", RAILS)


def test_other_names_need_no_pin() -> None:
    assert pinned("helm+burst") == "helm+burst"


@pytest.mark.usefixtures("stranger")
def test_a_stranger_is_found_by_its_entry_point_but_cannot_take_a_built_in_name() -> None:
    assert make_controller("thirds", RAILS).propose(observe()).emb_ratio == pytest.approx(1 / 3)
    assert make_controller("thirds+burst", RAILS).name == "thirds+burst"
    assert isinstance(make_controller("b5", RAILS), B5)
    learned = ["helm", "helm-base", "helm-on-b5", "helm-on-b7", "helm-on-hold", "helm-recovery", "helm-residual"]
    rules = ["b10", "b11", "b5", "b5-hits", "b5-node-stream", "b5-p99", "b7", "b9"]
    assert known_controllers() == [*rules, *learned, "paper", "static-0.50", "thirds", "policy-FILE", "NAME+burst"]


def test_only_methods_that_price_the_clusters_reuse_freeze_when_it_is_stale() -> None:
    names = ["b5", "b5+burst", "b5-node-stream", "static-0.50", "static-0.50+burst"]
    assert [uses_cluster_reuse(make_controller(name, RAILS)) for name in names] == [True, True, False, False, False]
    assert uses_cluster_reuse(Burst(Thirds(RAILS), RAILS))


def test_an_installed_package_adds_a_controller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example of the documentation, as `pip install` would leave it."""
    (tmp_path / "halves.py").write_text(STRANGER)
    metadata = tmp_path / "halves-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: halves\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[helm.controllers]\nhalves = halves:Halves\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "halves" in known_controllers()
    proposal = make_controller("halves", RAILS).propose(observe(emb_ratio=0.4, emb_hit_ratio=0.9, kv_hit_ratio=0.5))
    assert proposal == (pytest.approx(0.38), "halves", {"towards_kv": 0.02})


def test_the_documented_example_is_the_one_that_is_tested() -> None:
    assert STRANGER in (ROOT / "docs/controllers.md").read_text("utf-8")
    assert STRANGER.count("\n") <= 50
