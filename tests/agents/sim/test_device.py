"""The modelled device charges exactly the profile's constants."""

import msgspec
import numpy as np
import pytest

from agents.profiles import load_profile
from agents.sim.device import service_timings
from tests.agents.node.batches import batch_of
from tests.agents.node.test_node import tiny_node

COST = msgspec.structs.replace(
    load_profile("cpu-demo").cost,
    ms_fixed=1.0,
    ms_per_hit_row=0.0,
    ms_per_missing_row=0.5,
    ms_per_token=0.1,
    ms_per_token_squared=0.01,
    ms_per_candidate=0.25,
    ms_kv_hit_floor=0.2,
)


@pytest.mark.parametrize(("link_share", "emb_ms"), [(1.0, 3.5), (0.5, 7.0)])
def test_a_cold_request_pays_for_its_rows_its_prefill_and_its_candidates(link_share: float, emb_ms: float) -> None:
    batch = batch_of([(5, 4)], block_tokens=2, candidates=(1, 2, 3))
    _, plan = tiny_node().admit(1, batch)
    timings = service_timings(COST, batch, plan, np.zeros(1), link_share)
    assert timings.emb_ms == pytest.approx(emb_ms)  # four history rows and three candidates, all missing
    assert timings.compute_ms[0] == pytest.approx(1.0 + 0.1 * 4 + 0.01 * 16 + 0.25 * 3)
    assert timings.service_ms == pytest.approx(emb_ms + timings.compute_ms[0])


def test_a_kept_prefix_saves_its_prefill_and_its_rows() -> None:
    node = tiny_node()
    batch = batch_of([(5, 4)], block_tokens=2, candidates=(1, 2, 3))
    ticket, _ = node.admit(1, batch)
    node.complete(1, ticket, service_timings(COST, batch, _, np.zeros(1), 1.0))
    _, plan = node.admit(2, batch)
    timings = service_timings(COST, batch, plan, np.zeros(1), 1.0)
    assert timings.emb_ms == 0.0
    assert timings.compute_ms[0] == pytest.approx(1.0 + 0.2 + 0.25 * 3)
