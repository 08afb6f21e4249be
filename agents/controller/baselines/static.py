"""Static ratio: what most teams run, and the yardstick of every other method."""

from agents.controller.interface import Observation, Proposal


class Static:
    """Always proposes the same ratio."""

    period_ns = 5_000_000_000
    uses_cluster_reuse = False

    def __init__(self, emb_ratio: float) -> None:
        if not 0.0 < emb_ratio < 1.0:
            raise ValueError("emb_ratio of a static method must lie inside (0, 1)")
        self.name = f"static-{emb_ratio:.2f}"
        self._emb_ratio = emb_ratio

    def propose(self, observation: Observation) -> Proposal:
        """The fixed ratio, whatever is observed."""
        return Proposal(self._emb_ratio, "static", {"static": self._emb_ratio})
