import pytest

from agents.controller.baselines.static import Static
from tests.agents.controller.observations import observe, rising


def test_the_ratio_is_proposed_whatever_is_seen() -> None:
    method = Static(0.35)
    for changes in ({}, {"emb_ratio": 0.9}, {"emb_value": rising(0.9, 1e6)}):
        assert method.propose(observe(**changes)).emb_ratio == 0.35
    assert method.name == "static-0.35"


@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.1, float("nan")])
def test_a_ratio_that_leaves_nothing_to_a_cache_is_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match="emb_ratio"):
        Static(ratio)
