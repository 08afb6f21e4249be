import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.profiles import ModelShape
from agents.runtime.model.bias import MASKED, PositionTiles, log2_buckets

SHAPE = ModelShape(layers=2, dim=4, heads=1, qk_dim=2, v_dim=2, tokens_max=6, actions=2, time_buckets=8)


@settings(deadline=None)
@given(st.lists(st.integers(-(2**24), 2**24), min_size=1, max_size=40))
def test_a_bucket_is_the_floor_of_the_binary_logarithm(seconds: list[int]) -> None:
    expected = [min(max(abs(s), 1).bit_length() - 1, 15) for s in seconds]
    assert log2_buckets(torch.tensor(seconds), 16).tolist() == expected


def test_powers_of_two_begin_a_bucket_and_large_gaps_share_the_last() -> None:
    seconds = torch.tensor([0, 1, 2, 3, 4, 7, 8, 2**30, 2**31, 2**40, 2**62])
    assert log2_buckets(seconds, 32).tolist() == [0, 0, 1, 1, 2, 2, 3, 30, 31, 31, 31]


def test_a_bucket_does_not_depend_on_where_the_element_lies() -> None:
    seconds = torch.arange(1, 5000)
    together = log2_buckets(seconds, 32)
    assert all(int(log2_buckets(seconds[i : i + 1], 32)) == int(together[i]) for i in range(0, 4999, 13))


def test_a_history_tile_holds_the_bias_of_every_distance_and_masks_what_comes_later() -> None:
    table = torch.arange(2 * 13, dtype=torch.float32).view(2, 13)
    tiles = PositionTiles(table, SHAPE, rows_max=4)
    for layer in range(2):
        for columns in range(1, 7):
            for rows in range(1, min(4, columns) + 1):
                tile = tiles.history(layer, rows, columns)
                assert tile.shape == (2, 2, rows, columns)
                for key_kind in range(2):
                    for query_kind in range(2):
                        for r in range(rows):
                            for key in range(columns):
                                query = columns - rows + r
                                distance = (2 * query + query_kind) - (2 * key + key_kind)
                                expected = float(table[layer, distance]) if distance >= 0 else MASKED
                                assert float(tile[key_kind, query_kind, r, key]) == expected


def test_a_candidate_stands_at_the_position_after_the_history() -> None:
    table = torch.arange(2 * 13, dtype=torch.float32).view(2, 13)
    tiles = PositionTiles(table, SHAPE, rows_max=4)
    for columns in range(1, 7):
        tile = tiles.candidate(1, columns)
        expected = [[float(table[1, 2 * columns - (2 * key + kind)]) for key in range(columns)] for kind in range(2)]
        assert tile.tolist() == expected


def test_silu_of_the_mask_is_exactly_nothing() -> None:
    scores = torch.full((1000,), MASKED) + torch.linspace(-50.0, 50.0, 1000)
    assert torch.nn.functional.silu(scores).abs().max().item() == 0.0
