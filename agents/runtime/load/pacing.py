"""When the next request is due, and how fast the machine lets the stream run. Pure: time comes in.

Open loop: requests are due by the stream's own times, never by when answers come back, because a closed loop
slows down with the server and hides its latency. The rate is controlled by AIMD on the *pace*, stream seconds
per second: it climbs slowly while host and fleet have room and falls at once when they have not.
"""

from typing import NamedTuple

NS_PER_SECOND = 1_000_000_000


class PaceLimits(NamedTuple):
    """Bounds of the pace and the targets it answers to."""

    pace_min: float
    pace_max: float
    pace_refused_min: float = 0.05  # floor while the fleet refuses: below the asked rate is better than refused at it
    cpu_ratio_max: float = 0.70  # of the host; the rest belongs to the nodes' bursts and to the person at the machine
    latency_ms_max: float = 120.0  # the profile's SLO, compared with the P99 of the last seconds
    lag_ms_max: float = 250.0  # requests sent later than this after they were due: the generator itself starves


class PaceInputs(NamedTuple):
    """What one second showed. NaN where nothing was measured."""

    cpu_ratio: float
    latency_ms_p99: float
    refused: int  # answers 429 or 503 and timeouts in this second
    lag_ms: float


class PaceControl:
    """AIMD on the pace; `adaptive=False` holds the starting pace whatever happens."""

    RISE_RATIO = 0.02  # of the starting pace per second: the whole way from floor to ceiling takes a minute
    FALL_FACTOR = 0.85
    REST_SECONDS = 3  # after a fall, so that one overload is not punished twice before it can be felt
    SMOOTHING = 0.4  # of the newest second: a CPU reading of one second jumps by tens of percent

    def __init__(self, pace: float, limits: PaceLimits, adaptive: bool = True) -> None:
        self.pace = pace
        self.limits = limits
        self.adaptive = adaptive
        self.reason = "steady" if adaptive else "fixed"
        self.cpu_ratio = float("nan")
        self._step = pace * self.RISE_RATIO
        self._rest = 0

    def step(self, inputs: PaceInputs) -> float:
        """Called once a second; returns the pace for the next one."""
        if inputs.cpu_ratio == inputs.cpu_ratio:  # not NaN
            old = self.cpu_ratio if self.cpu_ratio == self.cpu_ratio else inputs.cpu_ratio
            self.cpu_ratio = old + self.SMOOTHING * (inputs.cpu_ratio - old)
        if not self.adaptive:
            return self.pace
        over = self._over(inputs)
        if over and self._rest <= 0:
            floor = self.limits.pace_refused_min if inputs.refused else self.limits.pace_min
            self.pace = min(self.pace, max(floor, self.pace * self.FALL_FACTOR))
            self._rest = self.REST_SECONDS
        elif not over and self._rest <= 0 and not self.cpu_ratio > self.limits.cpu_ratio_max - 0.05:
            self.pace = min(self.limits.pace_max, self.pace + self._step)
        self.reason = over or ("ceiling" if self.pace >= self.limits.pace_max else "climbing" if self._rest <= 0 else "resting")
        self._rest -= 1
        return self.pace

    def _over(self, inputs: PaceInputs) -> str:
        limits = self.limits
        if inputs.refused:
            return "refused by the fleet"
        if self.cpu_ratio > limits.cpu_ratio_max:
            return "host cpu"
        if inputs.lag_ms > limits.lag_ms_max:
            return "generator late"
        return "latency" if inputs.latency_ms_p99 > limits.latency_ms_max else ""


class StreamClock:
    """Maps stream time to the machine's under a pace that changes; never runs backwards."""

    def __init__(self, now_ns: int, pace: float) -> None:
        self._now_ns, self._stream_ns, self._pace = now_ns, 0.0, pace

    def due_ns(self, stream_ns: int) -> int:
        """Machine time at which a stream time is due."""
        return self._now_ns + round((stream_ns - self._stream_ns) / self._pace)

    def set_pace(self, now_ns: int, pace: float) -> None:
        """From now on the stream runs at `pace`."""
        self._stream_ns += (now_ns - self._now_ns) * self._pace
        self._now_ns, self._pace = now_ns, pace

    def forgive(self, lag_ns: int) -> None:
        """Move the stream later by a delay: requests missed are not sent in one flood afterwards."""
        self._now_ns += lag_ns
