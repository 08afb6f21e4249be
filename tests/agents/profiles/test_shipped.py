import pytest

from agents.profiles import available_profiles, load_profile

GPUS = ("a100-40g", "a100-80g", "h100-80g", "h200-141g")


def test_the_gpu_profiles_are_shipped_beside_the_demo() -> None:
    assert set(GPUS) | {"cpu-demo", "cpu-tiny"} <= set(available_profiles())


@pytest.mark.parametrize("name", GPUS)
def test_a_gpu_profile_has_the_papers_sizes(name: str) -> None:
    profile = load_profile(name)
    assert profile.name == name
    assert (profile.kv_token_bytes, profile.row_bytes, profile.page_bytes) == (12_432, 512, 2 << 20)
    assert (profile.block_tokens, profile.rows_per_page) == (168, 4096)
    model = profile.model
    assert model.layers * model.heads * (model.qk_dim + model.v_dim) * 2 == profile.kv_token_bytes  # fp16
    assert model.dim * 2 == profile.row_bytes


def test_an_a100_recomputes_ten_thousand_tokens_in_the_time_of_the_papers_form() -> None:
    cost = load_profile("a100-80g").cost
    recompute_ms = cost.ms_fixed + cost.ms_per_token * 10_000 + cost.ms_per_token_squared * 10_000**2
    assert recompute_ms == pytest.approx(5.8)
    assert 1 / cost.kv_hit_compute_ratio == pytest.approx(3.5)


def test_a_newer_gpu_is_faster_in_every_constant() -> None:
    a100, h100 = load_profile("a100-80g"), load_profile("h100-80g")
    for field in ("ms_fixed", "ms_per_hit_row", "ms_per_missing_row", "ms_per_token", "ms_per_token_squared", "ms_kv_hit_floor"):
        assert getattr(h100.cost, field) < getattr(a100.cost, field)
    assert h100.link_bytes_per_second > a100.link_bytes_per_second


def test_the_paced_node_is_the_demos_with_a_link_and_compute_eight_times_slower() -> None:
    paced, demo = load_profile("cpu-paced"), load_profile("cpu-demo")
    assert paced.paced
    assert not demo.paced
    assert (paced.pool_bytes, paced.rows, paced.model, paced.candidates) == (demo.pool_bytes, demo.rows, demo.model, demo.candidates)
    assert demo.link_bytes_per_second / paced.link_bytes_per_second == pytest.approx(8.0)
    for field in ("ms_fixed", "ms_per_token", "ms_per_token_squared", "ms_per_candidate", "ms_kv_hit_floor"):
        assert getattr(paced.cost, field) / getattr(demo.cost, field) == pytest.approx(8.0)
    assert paced.slo_ms / demo.slo_ms == pytest.approx(8.0)
