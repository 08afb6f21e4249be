"""What a policy is trained on: streams that no suite knows, the same ones for the same seed."""

from itertools import pairwise

import msgspec
import pytest

from agents.learning.config import Episodes, load_config
from agents.learning.streams import SEED_MIN, draw_streams


@pytest.fixture(scope="module")
def episodes() -> Episodes:
    return load_config("helm").episodes


def test_streams_of_training_are_no_streams_of_suites(episodes: Episodes) -> None:
    streams = draw_streams(episodes, 4)
    assert min(stream.scenario.seed for stream in streams) >= SEED_MIN
    assert len({stream.scenario.seed for stream in streams}) == len(streams) == 60


def test_every_workload_meets_every_admission_and_machine(episodes: Episodes) -> None:
    streams = draw_streams(episodes, 1)
    met = {(stream.scenario.workload, stream.scenario.admission) for stream in streams}
    assert (len(met), len(streams)) == (24, 60)
    assert {stream.scenario.profile for stream in streams} == {"a100-80g", "h100-80g"}


def test_loads_and_starts_lie_within_their_ranges(episodes: Episodes) -> None:
    ranges = {one.profile: one.rate_factor for one in episodes.hardware}
    for stream in draw_streams(episodes, 1):
        scenario = stream.scenario
        low, high = ranges[scenario.profile]
        assert low <= scenario.rate_per_second / scenario.nodes / episodes.workloads[scenario.workload] <= high
        assert episodes.start_ratio[0] <= stream.start_ratio <= episodes.start_ratio[1]


def test_more_streams_of_a_seed_begin_with_the_same_ones_and_another_seed_has_others(episodes: Episodes) -> None:
    """What a training is validated on comes after what it was taught on."""
    lengths = [draw_streams(msgspec.structs.replace(episodes, streams=count), 7) for count in (1, 12, 13, 60, 72, 97)]
    for fewer, more in pairwise(lengths):
        assert more[: len(fewer)] == fewer
    assert draw_streams(episodes, 8)[0] != lengths[0][0]


@pytest.mark.parametrize("seed", [-1, 1_000_000])
def test_a_seed_that_would_run_into_another_is_refused(episodes: Episodes, seed: int) -> None:
    with pytest.raises(ValueError, match="seed: must be 0 to 999,999"):
        draw_streams(episodes, seed)
