"""Who decides on a node: its own controller or a policy that it was told, how far it is heard, and how one follows another."""

from agents.artifacts.policy_file import read_policy
from agents.controller.baselines.b10 import Residents
from agents.controller.frozen import freeze
from agents.controller.interface import Controller, Observation, Proposal
from agents.controller.registry import learned, make_controller
from agents.controller.status import (
    ControllerStatus,
    controller_events,
    demote,
    demoted,
    layers_of,
    reinstate,
    set_rails,
    show_residents,
    status_of,
    tell_hold,
    use_policy,
)
from agents.node.desired import Desired, milder
from agents.node.estimators import Valuation
from agents.wire.errors import ErrorCode, WireError
from agents.wire.events import EventKind
from agents.wire.messages import ControllerMode, GuardRails

_OTHER_VARIANT = {"helm": "paper", "paper": "helm"}


def valuation_for(controller: Controller) -> Valuation:
    """In which unit, and by whose stream of users, a controller wants the caches valued."""
    return Valuation(getattr(controller, "unit", "ms"), getattr(controller, "kv_stream", "cluster"))


class Decider:
    """The seat of a node's controller. `own` names the one that the node was made with."""

    def __init__(self, own: str, rails: GuardRails, residents: Residents, controller: Controller | None = None) -> None:
        self._own = own
        self.controller: Controller = controller or make_controller(own, rails)
        self.valuation = valuation_for(self.controller)  # the node's meters are built for it
        self.status = ControllerStatus()  # after the last decision
        self.mode = ControllerMode.ACTIVE  # as desired, once the policy that it was said of decides
        self.policy_digest = ""  # who decides, as commands name it; empty: the node's own controller
        self.show(residents)

    def show(self, residents: Residents) -> None:
        """What lies in the caches, for a method that compares residents; shown again when it moves to other memory."""
        self._residents = residents
        show_residents(self.controller, residents)

    def propose(self, observation: Observation, held: bool) -> tuple[Proposal, list[tuple[EventKind, dict[str, str]]]]:
        """The controller's word, and what changed in it; one that is switched off is not asked. `held`: an operator holds the ratio."""
        tell_hold(self.controller, held, followed=not held and self.mode is ControllerMode.ACTIVE)
        if self.mode is ControllerMode.OFF:
            return Proposal(observation.emb_ratio, "off", {}), []
        proposal = self.controller.propose(observation)
        before, self.status = self.status, status_of(self.controller)
        return proposal, controller_events(before, self.status, proposal)

    # --- commands -------------------------------------------------------------------------

    def obey(self, before: Desired, wanted: Desired) -> None:
        """A command of the control plane.

        A mode is meant for the policy that it comes with: until that decides, whoever still does may do no more than before.
        """
        if wanted.policy_digest != self.policy_digest:
            self.mode = milder(self.mode, wanted.controller)
            return
        self.mode = wanted.controller
        if wanted.policy_generation > before.policy_generation:
            reinstate(self.controller)

    def set_rails(self, rails: GuardRails) -> None:
        """The operator's new limits."""
        set_rails(self.controller, rails)

    def use_policy(self, weights: bytes, card: bytes, wanted: Desired) -> str:
        """Decide by another policy; see `Node.use_policy`."""
        controller = learned(freeze(read_policy(weights, card)), wanted.guard_rails)
        if self._takes_in_place(controller):
            digest = use_policy(self.controller, weights, card)
        elif valuation_for(controller) == self.valuation:
            digest = controller.inner.policy_digest
            self._hand_over(controller)
        else:
            raise WireError(ErrorCode.INVALID_REQUEST, f"the controller {self._own} takes no policy", "policy_digest")
        self._decided_by(digest, wanted)
        return digest

    def use_own(self, wanted: Desired) -> None:
        """Decide by the controller that the node was made with; what the adapter has learned stays."""
        self._hand_over(make_controller(self._own, wanted.guard_rails))
        self._decided_by("", wanted)

    def _takes_in_place(self, wanted: Controller) -> bool:
        """Whether the present layers can go on with another policy: those of the other variant look at other times."""
        layers = layers_of(self.controller)
        return layers is not None and layers.name != _OTHER_VARIANT[wanted.name]

    def _hand_over(self, controller: Controller) -> None:
        state = self.adapter_state()
        self.controller, self.status = controller, ControllerStatus()
        self.show(self._residents)
        self.restore_adapter(state)

    def _decided_by(self, digest: str, wanted: Desired) -> None:
        self.policy_digest = digest
        if digest == wanted.policy_digest:
            self.mode = wanted.controller

    # --- what outlives a restart ----------------------------------------------------------

    @property
    def demoted_policy(self) -> str | None:
        """Digest of the policy in whose place the shadow decides, empty for the node's own; `None`: nobody was demoted."""
        return self.policy_digest if demoted(self.controller) else None

    def demote(self) -> None:
        """Let the shadow decide, as it did before a restart."""
        demote(self.controller)

    def adapter_state(self) -> dict[str, float]:
        """What the residual adapter has learned; empty without one."""
        layers = layers_of(self.controller)
        return {} if layers is None else layers.adapter_state()

    def restore_adapter(self, state: dict[str, float]) -> bool:
        """Give back what was kept; False, and nothing changes, if it is damaged or there is no adapter."""
        layers = layers_of(self.controller)
        return layers is not None and layers.restore_adapter(state)
