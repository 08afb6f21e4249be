"""The learned controller: frozen base policy, residual adapter, recovery; the node's guard stands above it.

Without a policy a rule is the base, and `base_name` says so. Layers can be switched off one by one for ablations.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.artifacts.policy_file import read_policy
from agents.controller import adapter
from agents.controller.decide import DECISION, RULES, Base, new_memories, propose_first
from agents.controller.features import FEATURE_SETS
from agents.controller.frozen import FrozenPolicy, feature_shares, freeze
from agents.controller.guard import rails_record
from agents.controller.interface import Controller, Observation, Proposal
from agents.controller.moment import fill, new_moments
from agents.controller.recovery import Phase
from agents.wire.messages import GuardRails

PAPER_PERIOD_NS = 5_000_000_000  # the paper decides, all layers together, every five seconds
CHECK_NS = 1_000_000_000  # a burst must be seen within two decisions, whatever the base's own period
_HOLD_RATIO = 1e-9


class ThreeLayers:
    """One node's learned controller.

    The base is `policy`, else `rule`, else the ratio the node started with. `check_ns` is how often the
    layers look; the base keeps its own, slower period.
    """

    uses_cluster_reuse = True

    def __init__(
        self,
        rails: GuardRails,
        *,
        name: str = "helm",
        policy: FrozenPolicy | None = None,
        rule: Controller | None = None,
        adapter_on: bool = True,
        recovery_on: bool = True,
        check_ns: int = CHECK_NS,
    ) -> None:
        self.name = name
        self.period_ns = check_ns
        self._rule = rule
        self._rule_due_ns: int | None = None
        self._policy: FrozenPolicy | None = None
        self._weights = np.zeros(1, np.float32)
        self._rules: NDArray[Any] = np.zeros(1, RULES)
        self._rules["adapter_on"], self._rules["recovery_on"] = adapter_on, recovery_on
        self._rules["base"] = Base.HOLD if rule is None else Base.RULE
        self._memory = new_memories(1, 0.5)
        self._moment = new_moments(1)
        self._decision = np.zeros(1, DECISION)
        self._phase, self._missing, self.refill_share = Phase.CALM, 0, 1.0
        self.held = False  # an operator holds the ratio: nothing of it is ours to learn from
        self.set_rails(rails)
        if policy is not None:
            self.use(policy)

    def use(self, policy: FrozenPolicy) -> None:
        """Decide by this policy from the next decision on; what adapter and recovery have learned stays."""
        self._rules["head"] = policy.head[0]
        self._rules["base"] = Base.POLICY
        self._weights, self._policy = policy.weights, policy
        self._memory["base_due_ns"] = self._memory["wished"] = 0

    def use_file(self, weights: bytes, card: bytes) -> str:
        """Check and use a policy file, returning its digest; `ArtefactError` if refused, and the present policy stays."""
        policy = freeze(read_policy(weights, card))
        self.use(policy)
        return policy.policy.card.digest

    def set_rails(self, rails: GuardRails) -> None:
        """Search inside these limits from the next decision on."""
        self._rules["rails"] = rails_record(rails)[0]

    def propose(self, observation: Observation) -> Proposal:
        """One decision of the three layers, as a ratio and each layer's share in it."""
        rule_ratio, rule_holds, reason = self._ask_rule(observation)
        fill(self._moment, observation, rule_ratio, rule_holds, self.held)
        proposed, goal, offset, phase, self._missing, frozen, warmth, self.refill_share = propose_first(
            self._rules, self._weights, self._memory, self._moment, observation.emb_value, observation.kv_value, self._decision
        )
        self._phase = _PHASES[phase]
        layers = {"base": goal, "residual": offset, "recovery": proposed - goal - offset, "phase": float(phase), "frozen": float(frozen)}
        own = _WARMTH_REASONS[warmth] or _PHASE_REASONS[phase] or reason
        return Proposal(proposed, "held_by_operator" if self.held else own, layers)

    def _ask_rule(self, observation: Observation) -> tuple[float, bool, str]:
        """The rule's word when it is due, seen from where the node would be without the adapter's offset."""
        if self._policy is not None or self._rule is None:
            return math.nan, True, "policy" if self._policy is not None else "hold"
        if self._rule_due_ns is not None and observation.now_ns < self._rule_due_ns:
            return math.nan, True, "between_decisions"
        self._rule_due_ns = observation.now_ns + self._rule.period_ns
        offset = float(self._memory["adapter"]["offset"][0]) if self._rules["adapter_on"][0] else 0.0
        seen = observation if offset == 0.0 else observation._replace(emb_ratio=observation.emb_ratio - offset)
        proposal = self._rule.propose(seen)
        return proposal.emb_ratio, abs(proposal.emb_ratio - seen.emb_ratio) <= _HOLD_RATIO, f"{self._rule.name}_{proposal.reason}"

    # --- what others may know -------------------------------------------------------------

    @property
    def base_name(self) -> str:
        """Who decides in calm: the policy's name, the rule, or `hold`."""
        if self._policy is not None:
            return self._policy.policy.card.name
        return "hold" if self._rule is None else self._rule.name

    @property
    def policy_digest(self) -> str:
        """Digest of the policy in force; empty without one."""
        return "" if self._policy is None else self._policy.policy.card.digest

    @property
    def phase(self) -> Phase:
        """Phase of the recovery layer."""
        return self._phase

    @property
    def missing_features(self) -> list[str]:
        """Features that were not numbers at the last decision of the policy, and kept their last good value."""
        if self._policy is None:
            return []
        names = self._policy.policy.card.features
        return [name for bit, name in enumerate(names) if self._missing >> bit & 1]

    def features(self) -> dict[str, float]:
        """Raw features of the last decision."""
        names = FEATURE_SETS[0] if self._policy is None else tuple(self._policy.policy.card.features)
        return dict(zip(names, self._memory["sight"]["raw"][0].tolist(), strict=False))

    def feature_shares(self) -> dict[str, float]:
        """Gradient x (input - mean) of every feature at the last decision; empty without a policy."""
        return {} if self._policy is None else feature_shares(self._policy, self._memory["sight"]["good"][0])

    def adapter_state(self) -> dict[str, float]:
        """What the adapter has learned, to be kept over a restart."""
        return adapter.saved(self._memory["adapter"])

    def restore_adapter(self, state: dict[str, float]) -> bool:
        """Take a kept state; False if it is not whole, and then nothing changes."""
        return adapter.restore(self._memory["adapter"], state)


_PHASES = tuple(Phase)
_WARMTH_REASONS = ("", "kv_has_room", "caches_were_empty", "caches_were_empty")
_PHASE_REASONS = ("", "recovery_surge", "recovery_easing")
