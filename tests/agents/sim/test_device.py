"""The modelled device charges exactly the profile's constants."""

import numpy as np
import pytest

from agents.numerics.cost import Cost, compute_ms
from agents.profiles import load_profile
from agents.sim.device import cost_constants, gather_ms
from agents.sim.world import BODY

COST = Cost(1.0, 0.0, 0.5, 0.1, 0.01, 0.25, 0.2)


@pytest.mark.parametrize(("link_share", "emb_ms"), [(1.0, 3.5), (0.5, 7.0)])
def test_missing_rows_take_longer_over_a_link_that_refill_shares(link_share: float, emb_ms: float) -> None:
    assert gather_ms(COST, 9.0, 7.0, link_share) == pytest.approx(emb_ms)


def test_a_cold_request_pays_for_its_prefill_and_its_candidates() -> None:
    assert compute_ms(COST, 4.0, 0.0, 3.0) == pytest.approx(1.0 + 0.1 * 4 + 0.01 * 16 + 0.25 * 3)


def test_a_kept_prefix_saves_its_prefill_down_to_the_floor() -> None:
    assert compute_ms(COST, 4.0, 4.0, 3.0) == pytest.approx(1.0 + 0.2 + 0.25 * 3)


def test_a_device_that_charges_for_hits_charges_their_share_of_a_recompute() -> None:
    dear = COST._replace(kv_hit_compute_ratio=0.5)
    assert compute_ms(dear, 40.0, 40.0, 0.0) == pytest.approx(1.0 + 0.5 * (0.1 * 40 + 0.01 * 1600))


def test_a_nodes_record_carries_every_constant_of_its_profile() -> None:
    cost = load_profile("a100-80g").cost
    body = np.zeros(1, BODY)
    for name in type(cost).__struct_fields__:
        body[name] = getattr(cost, name)
    found = cost_constants(body[0])
    assert found._asdict() == {name: getattr(cost, name) for name in found._fields}
