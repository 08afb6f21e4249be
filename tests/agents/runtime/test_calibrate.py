from pathlib import Path

import numpy as np
import pytest

from agents.profiles import available_profiles, load_profile
from agents.runtime.calibrate import WARM_UPS, measure, probes
from agents.runtime.cost_fit import fit_cost
from agents.runtime.device.cpu import CpuStore
from agents.runtime.device.link import Link
from agents.runtime.device.table import HostTable
from tests.agents.runtime.device.parts import HALF_PROFILE, PROFILE, assemble, make_bench


@pytest.mark.parametrize("name", available_profiles())
def test_a_profile_can_be_probed_within_its_pool_and_table(name: str) -> None:
    profile = load_profile(name)
    found = list(probes(profile))
    slots = profile.pages // 2 * profile.rows_per_page
    for probe in found:
        assert 0 <= probe.cached <= probe.tokens <= profile.model.tokens_max
        assert probe.tokens // profile.block_tokens <= profile.pages // 2
        assert probe.candidates > 0
        assert probe.tokens - probe.cached + probe.candidates <= min(slots, profile.rows)
    assert {probe.term for probe in found} == {"link", "gather", "candidates", "prefill", "delta"}
    assert len({probe.tokens for probe in found if probe.term == "prefill"}) >= 4


def test_samples_say_what_was_moved_and_how_long_it_took(table_path: Path) -> None:
    waits: list[float] = []
    link = Link(1e6, 1e6, clock=lambda: sum(waits), sleep=waits.append)
    bench = assemble(PROFILE, HostTable(table_path), lambda table: CpuStore(PROFILE, table, link, clock=lambda: sum(waits)))
    said: list[str] = []
    samples = measure(bench.executor, PROFILE, 2, said.append)
    assert len(said) == WARM_UPS + 2
    for sample in samples:
        rows = sample.tokens - sample.cached + sample.candidates
        assert (sample.hits, sample.misses) == ((0, rows) if sample.term == "link" else (rows, 0))
    fitted = fit_cost(samples)  # time passes on the link only: 32 bytes at 1 MB/s
    assert fitted.cost.ms_per_missing_row == pytest.approx(0.032, rel=1e-3)
    assert fitted.cost.ms_per_hit_row == fitted.cost.ms_per_token == 0.0


def test_half_sized_elements_are_measured_alike(table_path: Path) -> None:
    bench = make_bench("cpu", HALF_PROFILE, table_path)
    assert all(np.isfinite(sample.attend_ms) for sample in measure(bench.executor, HALF_PROFILE, 1, lambda line: None))
