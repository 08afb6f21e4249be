"""Methods by name: the names operators, scenarios and suites use for controllers.

A stranger's package adds its own through an entry point in the group `helm.controllers`: the entry's
name is the method's, its object is called with the guard rails and returns a `Controller`.

    static-0.35          a fixed ratio
    schedule-0:0.5,60:0.4    a schedule: ratios from these seconds on
    b5, b7, b9, ...      see `known_controllers`
    helm, paper          the three layers with a shadow; helm-base, helm-residual, helm-recovery: some of them, without
    helm-on-b7, -b5, -hold    the layers with a rule, or with nothing, in place of the learned base
    policy-FILE          the three layers with a shadow over a policy of yours: FILE is its card, trained/helm.json, or its weights;
                         FILE#DIGEST holds a name to these very bytes
    NAME+burst           any of them under the recovery layer
    NAME+burst-0.30      the same, going to a preset ratio
"""

import re
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from agents.artifacts.on_disk import policy_at
from agents.artifacts.policy_file import PolicyFile, read_policy
from agents.artifacts.shipped import shipped_policy
from agents.controller.baselines.b5 import B5
from agents.controller.baselines.b7 import B7
from agents.controller.baselines.b9 import B9
from agents.controller.baselines.b10 import B10
from agents.controller.baselines.b11 import B11
from agents.controller.baselines.burst import Burst
from agents.controller.baselines.s3 import parse_schedule
from agents.controller.baselines.static import Static
from agents.controller.frozen import FrozenPolicy, freeze
from agents.controller.interface import Controller
from agents.controller.shadow import Shadowed
from agents.controller.three_layers import CHECK_NS, PAPER_PERIOD_NS, ThreeLayers
from agents.wire.messages import GuardRails

ENTRY_POINT_GROUP = "helm.controllers"
ControllerFactory = Callable[[GuardRails], Controller]


def _learned(rails: GuardRails, name: str, policy: str = "helm", *, adapter_on: bool = True, recovery_on: bool = True) -> ThreeLayers:
    """The three layers over a shipped policy, or over B5 where this version ships none of that name."""
    found = _frozen(policy)
    rule = B5(rails) if found is None else None
    check_ns = PAPER_PERIOD_NS if policy == "paper" else CHECK_NS
    return ThreeLayers(rails, name=name, policy=found, rule=rule, adapter_on=adapter_on, recovery_on=recovery_on, check_ns=check_ns)


def _frozen(name: str) -> FrozenPolicy | None:
    file = shipped_policy(name)
    return None if file is None else freeze(read_policy(file.weights, file.card))


def _shadowed(rails: GuardRails, name: str) -> Shadowed:
    return Shadowed(_learned(rails, name, policy=name), B7(rails), rails)


_BUILT_IN: dict[str, ControllerFactory] = {
    "b5": B5,
    "b5-hits": lambda rails: B5(rails, unit="hits"),
    "b5-node-stream": lambda rails: B5(rails, kv_stream="node"),
    "b5-p99": lambda rails: B5(rails, tail=True),
    "b7": B7,
    "b9": B9,
    "b10": B10,
    "b11": B11,
    "helm": lambda rails: _shadowed(rails, "helm"),
    "paper": lambda rails: _shadowed(rails, "paper"),
    "helm-base": lambda rails: _learned(rails, "helm-base", adapter_on=False, recovery_on=False),
    "helm-residual": lambda rails: _learned(rails, "helm-residual", recovery_on=False),
    "helm-recovery": lambda rails: _learned(rails, "helm-recovery", adapter_on=False),
    "helm-on-b5": lambda rails: ThreeLayers(rails, name="helm-on-b5", rule=B5(rails)),
    "helm-on-b7": lambda rails: ThreeLayers(rails, name="helm-on-b7", rule=B7(rails)),
    "helm-on-hold": lambda rails: ThreeLayers(rails, name="helm-on-hold"),
}
_STATIC = re.compile(r"static-(\d(?:\.\d+)?)")
_SCHEDULE = "schedule-"
_POLICY = re.compile(r"policy-(?P<card>[^#]+)(?:#(?P<digest>[0-9a-f]+))?")
DIGEST_SHOWN = 12  # digits of a digest in a name
_BURST = re.compile(r"(?P<inner>.+)\+burst(?:-(?P<preset>\d(?:\.\d+)?))?")


def learned(policy: FrozenPolicy, rails: GuardRails) -> Shadowed:
    """The three layers over `policy`, watched by B7: what decides on a node that was told to decide by a version."""
    paper = bool(policy.head[0]["paper_features"])
    layers = ThreeLayers(rails, name="paper" if paper else "helm", policy=policy, check_ns=PAPER_PERIOD_NS if paper else CHECK_NS)
    return Shadowed(layers, B7(rails), rails)


def make_controller(name: str, rails: GuardRails) -> Controller:
    """Construct a method by its name; `ValueError` names the known ones if it is not among them."""
    if burst := _BURST.fullmatch(name):
        preset = burst["preset"]
        return Burst(make_controller(burst["inner"], rails), rails, None if preset is None else float(preset))
    if static := _STATIC.fullmatch(name):
        return Static(float(static[1]))
    if policy := _POLICY.fullmatch(name):
        file = _file(policy["card"], policy["digest"] or "")
        return learned(freeze(read_policy(file.weights, file.card)), rails)
    if name.startswith(_SCHEDULE):
        return parse_schedule(name.removeprefix(_SCHEDULE))
    if name in _BUILT_IN:
        return _BUILT_IN[name](rails)
    for entry in _strangers():
        if entry.name == name:
            factory: ControllerFactory = entry.load()
            return factory(rails)
    raise ValueError(f"controller: unknown {name!r}, choose one of {', '.join(known_controllers())}")


def pinned(name: str) -> str:
    """The name with the digest of the policy that it reads from a file: what answers under it may be kept by."""
    policy = _POLICY.fullmatch(name)
    if policy is None or policy["digest"]:
        return name
    return f"policy-{Path(policy['card']).resolve()}#{_file(policy['card'], '').digest[:DIGEST_SHOWN]}"


def _file(card: str, digest: str) -> PolicyFile:
    try:
        file = policy_at(Path(card))
    except OSError as error:
        raise ValueError(f"controller: cannot read {error.filename}: {error.strerror}") from error
    if not file.digest.startswith(digest):
        raise ValueError(f"controller: {card} is policy {file.digest[:DIGEST_SHOWN]}, not {digest}")
    return file


def known_controllers() -> list[str]:
    """Names that can be constructed; `static-0.50`, `schedule-...`, `policy-FILE` and `NAME+burst` stand for their families."""
    return [*sorted({"static-0.50", *_BUILT_IN, *(entry.name for entry in _strangers())}), "policy-FILE", "NAME+burst"]


def uses_cluster_reuse(controller: Controller) -> bool:
    """Whether stale statistics of the cluster must freeze this method; a stranger's is taken to."""
    return bool(getattr(controller, "uses_cluster_reuse", True))


def _strangers() -> list[EntryPoint]:
    """Installed entry points; built-in names cannot be taken over."""
    return sorted((entry for entry in entry_points(group=ENTRY_POINT_GROUP) if entry.name not in _BUILT_IN), key=lambda entry: entry.name)
