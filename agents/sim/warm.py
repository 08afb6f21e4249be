"""Compile the fleet's kernel by a second of a small fleet's life, so that the first what-if need not wait for a compiler."""

from agents.sim.scenario import Scenario, run


def warm_up() -> None:
    """About a minute of CPU where nothing is compiled yet, two seconds where everything is."""
    run(Scenario(profile="cpu-tiny", workload="steady", nodes=1, duration_seconds=2.0, warmup_seconds=0.0, rate_per_second=5.0))
