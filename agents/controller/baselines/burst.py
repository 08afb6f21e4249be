"""The product's own burst layer around any method, so that a learned policy's win cannot come from that hand-written part alone."""

from agents.controller.interface import Controller, Observation, Proposal
from agents.controller.recovery import Phase
from agents.controller.three_layers import ThreeLayers
from agents.wire.messages import GuardRails


class Burst(ThreeLayers):
    """`inner` under `recovery.py`: in a burst its safe split is the most that EMB gets, or the node goes to `preset_ratio`."""

    def __init__(self, inner: Controller, rails: GuardRails, preset_ratio: float | None = None) -> None:
        if preset_ratio is not None and not 0.0 < preset_ratio < 1.0:
            raise ValueError("preset_ratio must lie inside (0, 1)")
        name = f"{inner.name}+burst" + ("" if preset_ratio is None else f"-{preset_ratio:.2f}")
        super().__init__(rails, name=name, rule=inner, adapter_on=False)
        self.inner = inner
        self.uses_cluster_reuse = bool(getattr(inner, "uses_cluster_reuse", True))
        self._preset_ratio = preset_ratio

    def set_rails(self, rails: GuardRails) -> None:
        """The operator's new limits, for both."""
        super().set_rails(rails)
        tell = getattr(self._rule, "set_rails", None)
        if tell is not None:
            tell(rails)

    def propose(self, observation: Observation) -> Proposal:
        """What the layer makes of the inner method's word."""
        proposal = super().propose(observation)
        if self._preset_ratio is None or self.phase is not Phase.SURGE:
            return proposal
        return proposal._replace(emb_ratio=self._preset_ratio, reason="recovery_preset")
