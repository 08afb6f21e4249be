import numpy as np
import pytest

from agents.numerics.prefix import block_hashes
from agents.profiles import load_profile
from agents.wire.ids import user_key
from agents.workloads.block_adapter import BlockAdapter, row_numbers
from agents.workloads.demo import DemoParameters, synthetic_workload
from agents.workloads.generators import SyntheticWorkload

PROFILE = load_profile("cpu-demo")


def demo() -> SyntheticWorkload:
    parameters = DemoParameters.for_profile(PROFILE)
    stream = synthetic_workload("steady", 3, parameters=parameters)
    stream.duration_seconds = 2.0
    return stream


def test_an_unsampled_block_carries_what_the_requests_carry() -> None:
    requests = list(demo().requests())
    (block,) = BlockAdapter(demo(), PROFILE.rows, 0, b"salt").blocks(PROFILE.block_tokens)
    assert block.at_ns.tolist() == [request.at_ns for request in requests]
    assert block.user_keys.tolist() == [user_key(request.user, b"salt") for request in requests]
    assert np.array_equal(block.history_rows, np.concatenate([request.history_items for request in requests]))
    assert np.array_equal(block.candidate_rows, np.concatenate([request.candidates for request in requests]))
    last = requests[-1]
    hashes = block_hashes(last.history_items, last.history_actions, last.history_ts, PROFILE.block_tokens)
    assert np.array_equal(block.block_hashes[block.block_offsets[-2] :], hashes)


def test_a_sampled_block_carries_the_followed_rows_under_their_dense_numbers() -> None:
    numbers = row_numbers(PROFILE.rows, 4)
    (full,) = BlockAdapter(demo(), PROFILE.rows, 0).blocks(PROFILE.block_tokens)
    (thin,) = BlockAdapter(demo(), PROFILE.rows, 4).blocks(PROFILE.block_tokens)
    followed = numbers[full.candidate_rows]
    assert np.array_equal(followed[followed >= 0], thin.candidate_rows)
    assert np.array_equal(full.history_tokens, thin.history_tokens)
    assert thin.candidate_rows.size / full.candidate_rows.size == pytest.approx(1 / 16, rel=0.15)


def test_row_numbers_are_dense_and_nested() -> None:
    numbers = row_numbers(10_000, 3)
    assert np.array_equal(numbers[numbers >= 0], np.arange((numbers >= 0).sum()))
    assert (numbers >= 0).mean() == pytest.approx(1 / 8, rel=0.1)
    assert (numbers[row_numbers(10_000, 5) >= 0] >= 0).all()


def test_impossible_sampling_is_refused() -> None:
    with pytest.raises(ValueError, match="row_shift"):
        row_numbers(10, 17)
