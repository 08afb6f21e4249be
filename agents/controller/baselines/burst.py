"""The burst layer, around any controller: when arrivals break out, hold still or go to a preset, then hand back.

The curves lag a burst by their half-life, so what they suggest at its onset is the calm's optimum. The
wrapper watches the ratio of the fast to the slow arrival rate every second, takes over when it breaks out,
and hands back when it has calmed down or after `seconds_max`, whichever is first. Every method may have it, so a win
of a learned policy cannot come from this hand-written part alone.
"""

from agents.controller.interface import Controller, Observation, Proposal
from agents.numerics.detectors import BurstDetector

_SECONDS_MIN = 10.0  # shorter than a refill of the largest step, a hand-back would undo what just began
_SECONDS_MAX = 180.0  # a burst that lasts is the new traffic, and the curves have seen it by then
_CHECK_NS = 1_000_000_000


class Burst:
    """`inner`, except during a burst: then the ratio at its onset (freeze), or `preset_ratio`."""

    def __init__(
        self, inner: Controller, preset_ratio: float | None = None, seconds_min: float = _SECONDS_MIN, seconds_max: float = _SECONDS_MAX
    ) -> None:
        if preset_ratio is not None and not 0.0 < preset_ratio < 1.0:
            raise ValueError("preset_ratio must lie inside (0, 1)")
        if not 0.0 <= seconds_min <= seconds_max:
            raise ValueError("seconds_min must be between 0 and seconds_max")
        self.name = f"{inner.name}+burst" + ("" if preset_ratio is None else f"-{preset_ratio:.2f}")
        self.period_ns = min(_CHECK_NS, inner.period_ns)
        self.inner = inner
        self.uses_cluster_reuse = getattr(inner, "uses_cluster_reuse", True)
        self._preset_ratio = preset_ratio
        self._seconds_min = seconds_min
        self._seconds_max = seconds_max
        self._detector = BurstDetector()
        self._since_ns: int | None = None
        self._ratio = 0.0
        self._timed_out = False
        self._inner_due_ns: int | None = None

    @property
    def active(self) -> bool:
        """True while a burst is being handled; the body may cap refill then."""
        return self._since_ns is not None

    def propose(self, observation: Observation) -> Proposal:
        """The burst's ratio while it lasts, else the inner method's word when it is due, else hold."""
        breaking_out = self._detector.update(observation.requests_per_second_fast, observation.requests_per_second_slow)
        self._timed_out = self._timed_out and breaking_out
        if self._since_ns is None and breaking_out and not self._timed_out:
            self._since_ns = observation.now_ns
            self._ratio = observation.emb_ratio if self._preset_ratio is None else self._preset_ratio
        if self._since_ns is not None and not self._over(observation.now_ns, breaking_out):
            reason = "burst_freeze" if self._preset_ratio is None else "burst_preset"
            return Proposal(self._ratio, reason, {"burst": self._ratio})
        return self._inner(observation)

    def _over(self, now_ns: int, breaking_out: bool) -> bool:
        assert self._since_ns is not None
        seconds = (now_ns - self._since_ns) / 1e9
        self._timed_out = breaking_out and seconds >= self._seconds_max
        over = self._timed_out or (not breaking_out and seconds >= self._seconds_min)
        if over:
            self._since_ns = None
        return over

    def _inner(self, observation: Observation) -> Proposal:
        """The inner method keeps its own, slower period; between its turns the answer is hold."""
        if self._inner_due_ns is not None and observation.now_ns < self._inner_due_ns:
            return Proposal(observation.emb_ratio, "between_decisions", {})
        self._inner_due_ns = observation.now_ns + self.inner.period_ns
        return self.inner.propose(observation)
