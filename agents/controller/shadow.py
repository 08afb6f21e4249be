"""The strongest rule beside the policy, on the same information: what it would do, and what following the policy costs.

The rule drives a ratio of its own, under the same guard and actuator. Both ratios are valued with the same curves;
regret is what the rule's ratio would have saved more. A window of a minute is lost when the regret in it exceeds one
percent of the value. While P99 lies under half of the SLO milliseconds are cheap, and a policy may spend a tenth of the value on
being insured against the burst that has not come; every rule that follows the curves pays for that with its tail at the onset.
After five lost windows in a row the rule takes over for good, in the burst layer that it was compared in: until a
person or a new policy says otherwise. Time in the recovery layer's hands does not count, because there insurance is
bought on purpose; nor does time in which the node does not do what the policy says, for what that costs is not its doing.
"""

from agents.controller.baselines.burst import Burst
from agents.controller.guard import Guard, GuardInputs
from agents.controller.interface import Controller, Observation, Proposal
from agents.controller.recovery import Phase
from agents.controller.three_layers import ThreeLayers
from agents.controller.value import split_value
from agents.wire.messages import GuardRails

WINDOW_SECONDS = 60.0
LOST_RATIO = 0.01
PREMIUM_RATIO = 0.1  # may be lost instead, while P99 / SLO is under `_EASY_RATIO`
_EASY_RATIO = 0.5
WINDOWS_MAX = 5
_GAP_SECONDS_MAX = 10.0  # a longer silence between decisions is not counted


class Shadowed:
    """`inner`, watched by `rule`; after a demotion `rule`."""

    uses_cluster_reuse = True

    def __init__(self, inner: ThreeLayers, rule: Controller, rails: GuardRails) -> None:
        self.name = inner.name
        self.period_ns = inner.period_ns
        self.inner = inner
        self.instead = Burst(rule, rails)  # who decides after a demotion
        self.followed = True  # the node does what it is told
        self._rule = rule
        self._rails = rails
        self.reinstate()

    def reinstate(self) -> None:
        """Begin afresh: the policy decides, nothing is lost yet."""
        self.demoted = False
        self.shadow_emb_ratio: float | None = None
        self.regret_ms = 0.0  # cumulative, since the policy in force began
        self._lost_windows = 0
        self._guard: Guard | None = None
        self._due_ns: int | None = None
        self._seen_ns: int | None = None
        self._window = [0.0, 0.0, 0.0]  # seconds, regret, and the regret that is allowed

    @property
    def deciding(self) -> ThreeLayers:
        """Whose word goes to the guard: the policy's layers, or those around the rule."""
        return self.instead if self.demoted else self.inner

    def demote(self) -> None:
        """The rule decides from the next decision on."""
        self.demoted = True
        self.instead = Burst(self._rule, self._rails)

    def follow(self, followed: bool) -> None:
        """Whether the node does what it is told; when it does so again, the rule sets out from where the node then is."""
        if followed and not self.followed:
            self._guard, self._window = None, [0.0, 0.0, 0.0]
        self.followed = followed

    def use_file(self, weights: bytes, card: bytes) -> str:
        """Put another policy in the place of the present one, and trust it anew; `ArtefactError` if refused."""
        digest = self.inner.use_file(weights, card)
        self.reinstate()
        return digest

    def set_rails(self, rails: GuardRails) -> None:
        """The operator's new limits, for both."""
        self._rails = rails
        self.inner.set_rails(rails)
        self.instead.set_rails(rails)
        if self._guard is not None:
            self._guard.set_rails(rails)

    def propose(self, observation: Observation) -> Proposal:
        """The policy's word, or after a demotion the rule's."""
        proposal = self.deciding.propose(observation)
        if self.demoted:
            return proposal._replace(reason=f"demoted_{proposal.reason}")
        self._compare(observation)
        return proposal

    def _compare(self, observation: Observation) -> None:
        """One step of the rule's own ratio, and the regret of the time since the last."""
        now_ns = observation.now_ns
        if self._guard is None:
            self._guard = Guard(self._rails, observation.move_ratio_per_second, observation.emb_ratio)
        ratio = self._guard.step(now_ns)
        if self._due_ns is None or now_ns >= self._due_ns:
            self._due_ns = now_ns + self._rule.period_ns
            wish = self._rule.propose(observation._replace(emb_ratio=ratio)).emb_ratio
            self._guard.limit(now_ns, GuardInputs(wish, None, ratio, 0, observation.reuse_age_ns))
        self.shadow_emb_ratio = self._guard.target
        seconds = 0.0 if self._seen_ns is None else min((now_ns - self._seen_ns) / 1e9, _GAP_SECONDS_MAX)
        self._seen_ns = now_ns
        value = split_value(observation.emb_value, observation.kv_value, ratio, 1.0)
        regret = value - split_value(observation.emb_value, observation.kv_value, observation.emb_ratio, 1.0)
        if regret == regret and self.followed and self.inner.phase is Phase.CALM:
            easy = observation.latency_ms_p99 < _EASY_RATIO * observation.slo_ms
            self._count(max(0.0, seconds), regret, value * (PREMIUM_RATIO if easy else LOST_RATIO))

    def _count(self, seconds: float, regret: float, allowed: float) -> None:
        self.regret_ms += regret * seconds
        self._window = [self._window[0] + seconds, self._window[1] + regret * seconds, self._window[2] + allowed * seconds]
        if self._window[0] < WINDOW_SECONDS:
            return
        lost = self._window[1] > self._window[2]
        self._lost_windows = self._lost_windows + 1 if lost else 0
        self._window = [0.0, 0.0, 0.0]
        if self._lost_windows >= WINDOWS_MAX:
            self.demote()
