"""What a controller lets others know besides its proposal; any method has a status, most an empty one."""

from typing import NamedTuple

from agents.controller.baselines.b10 import Residents
from agents.controller.baselines.burst import Burst
from agents.controller.interface import Controller, Proposal
from agents.controller.recovery import Phase
from agents.controller.shadow import Shadowed
from agents.controller.three_layers import ThreeLayers
from agents.wire.events import EventKind
from agents.wire.messages import GuardRails, Mode

_PHASE_EVENTS = {Phase.SURGE: EventKind.RECOVERY_STARTED, Phase.CALM: EventKind.RECOVERY_ENDED}


class ControllerStatus(NamedTuple):
    """State of the layers after the last decision."""

    learned: bool = False  # has the three layers
    phase: Phase = Phase.CALM
    refill_share: float = 1.0  # of the refill budget that may be used now
    base: str = ""  # who decides in calm
    policy_digest: str = ""
    missing_features: tuple[str, ...] = ()
    shadow_emb_ratio: float | None = None
    regret_ms: float = 0.0
    demoted: bool = False


def status_of(controller: Controller) -> ControllerStatus:
    """Look through the wrappers at what is inside."""
    if isinstance(controller, Shadowed):
        inside, layers = status_of(controller.inner), controller.deciding
        inside = inside._replace(phase=layers.phase, refill_share=layers.refill_share)
        if controller.demoted:  # a policy that is not asked misses nothing, and has no shadow
            return inside._replace(missing_features=(), regret_ms=controller.regret_ms, demoted=True)
        return inside._replace(shadow_emb_ratio=controller.shadow_emb_ratio, regret_ms=controller.regret_ms)
    if isinstance(controller, Burst):
        return status_of(controller.inner)._replace(phase=controller.phase, refill_share=controller.refill_share)
    if isinstance(controller, ThreeLayers):
        return ControllerStatus(
            learned=True,
            phase=controller.phase,
            refill_share=controller.refill_share,
            base=controller.base_name,
            policy_digest=controller.policy_digest,
            missing_features=tuple(controller.missing_features),
        )
    return ControllerStatus()


def layers_of(controller: Controller) -> ThreeLayers | None:
    """The three layers inside, if there are any."""
    if isinstance(controller, Shadowed | Burst):
        return layers_of(controller.inner)
    return controller if isinstance(controller, ThreeLayers) else None


def feature_shares_of(controller: Controller) -> dict[str, float]:
    """Gradient x (input - mean) per feature of the last decision; empty where no learned policy decides."""
    if isinstance(controller, Shadowed) and controller.demoted:
        return {}
    layers = layers_of(controller)
    return {} if layers is None else layers.feature_shares()


def set_rails(controller: Controller, rails: GuardRails) -> None:
    """Tell a method the operator's new limits, if it wants to know; the guard enforces them in any case."""
    tell = getattr(controller, "set_rails", None)
    if tell is not None:
        tell(rails)


def show_residents(controller: Controller, residents: Residents) -> None:
    """Let a method that compares residents look at the node's."""
    if isinstance(controller, Shadowed | Burst):
        show_residents(controller.inner, residents)
    show = getattr(controller, "show", None)
    if show is not None:
        show(residents)


def tell_hold(controller: Controller, held: bool, followed: bool) -> None:
    """Tell the layers whether an operator holds the ratio, and the shadow whether the node does what it is told.

    What a node does under a hold is not the layers' to learn from, and what it costs not to be heard is not theirs to answer for.
    """
    if isinstance(controller, Shadowed):
        controller.follow(followed)
        controller.instead.held = held
    if isinstance(controller, Burst):
        controller.held = held
    layers = layers_of(controller)
    if layers is not None:
        layers.held = held


def demoted(controller: Controller) -> bool:
    """Whether the shadow decides in a policy's place."""
    return isinstance(controller, Shadowed) and controller.demoted


def demote(controller: Controller) -> None:
    """Let the shadow decide, as it did before a restart; nothing where there is none."""
    if isinstance(controller, Shadowed):
        controller.demote()


def reinstate(controller: Controller) -> None:
    """Trust the policy anew, if it was demoted."""
    if isinstance(controller, Shadowed) and controller.demoted:
        controller.reinstate()


def use_policy(controller: Controller, weights: bytes, card: bytes) -> str:
    """Change the policy inside; `ArtefactError` if refused, `ValueError` where there is none to change."""
    if isinstance(controller, Burst):
        return use_policy(controller.inner, weights, card)
    if isinstance(controller, Shadowed | ThreeLayers):
        return controller.use_file(weights, card)
    raise ValueError(f"{controller.name} takes no policy")


def controller_events(before: ControllerStatus, now: ControllerStatus, proposal: Proposal) -> list[tuple[EventKind, dict[str, str]]]:
    """What is worth a line in the event feed after a decision."""
    events: list[tuple[EventKind, dict[str, str]]] = []
    if now.demoted and not before.demoted:
        events.append((EventKind.POLICY_DEMOTED, {"base": now.base, "regret_ms": f"{now.regret_ms:.0f}"}))
    kind = _PHASE_EVENTS.get(now.phase)
    if kind is not None and now.phase is not before.phase:
        events.append((kind, {"emb_ratio": f"{proposal.emb_ratio:.3f}"}))
    return events


def mode_in_force(wanted: Mode, status: ControllerStatus) -> Mode:
    """What a node says of itself: an operator's hold, else the layer that decides."""
    if wanted is not Mode.AUTO:
        return wanted
    if status.demoted:
        return Mode.DEMOTED
    return Mode.AUTO if status.phase is Phase.CALM else Mode.RECOVERY
