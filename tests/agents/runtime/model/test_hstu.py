import math
from typing import NamedTuple

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agents.profiles import ModelShape, load_profile
from agents.runtime.model import HstuRanker, Weights, init_weights

TOLERANCE = 1e-4
TINY = ModelShape(layers=2, dim=8, heads=1, qk_dim=4, v_dim=4, tokens_max=80, actions=5, time_buckets=16)
DEEP = ModelShape(layers=3, dim=8, heads=2, qk_dim=3, v_dim=5, tokens_max=80, actions=5, time_buckets=16)
RANKERS = {shape.layers: HstuRanker(shape, init_weights(shape, 5)) for shape in (TINY, DEEP)}


class Case(NamedTuple):
    rows: torch.Tensor
    actions: torch.Tensor
    ts: torch.Tensor
    candidates: torch.Tensor


def make_case(shape: ModelShape, tokens: int, candidates: int, seed: int = 0) -> Case:
    generator = torch.Generator().manual_seed(seed)
    gaps = (torch.rand(tokens, generator=generator) * 14).exp().long()
    return Case(
        torch.randn(tokens, shape.dim, generator=generator),
        torch.randint(0, shape.actions, (tokens,), generator=generator),
        1_700_000_000 + gaps.cumsum(0),
        torch.randn(candidates, shape.dim, generator=generator),
    )


def no_cache(ranker: HstuRanker) -> torch.Tensor:
    return torch.empty(0, ranker.token_floats, dtype=ranker.dtype)


def scratch(ranker: HstuRanker, case: Case) -> tuple[torch.Tensor, torch.Tensor]:
    return ranker.forward(case.rows, case.actions, case.ts, no_cache(ranker), case.candidates)


def appended(ranker: HstuRanker, case: Case, cuts: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores and KV when the history arrives in parts that end at `cuts`, each part on top of the cache so far."""
    held = no_cache(ranker)
    for start, stop in zip([0, *cuts[:-1]], cuts, strict=True):
        scores, fresh = ranker.forward(case.rows[start:stop], case.actions[start:stop], case.ts[:stop], held, case.candidates)
        held = torch.cat((held, fresh))
    return scores, held


def norm(x: torch.Tensor) -> torch.Tensor:
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-6).sqrt()


def slow_scores(shape: ModelShape, weights: Weights, case: Case) -> list[float]:
    """One candidate at a time in float64: the interleaved sequence with the candidate behind it, position by position."""
    w = Weights(*(tensor.double() for tensor in weights))
    tokens = case.ts.shape[0]
    history = [part for i in range(tokens) for part in (case.rows[i].double(), w.action_embedding[case.actions[i]])]
    times = [int(t) for t in case.ts for _ in range(2)] + [int(case.ts[-1])]
    return [slow_score(shape, w, torch.stack([*history, candidate.double()]), times) for candidate in case.candidates]


def slow_score(shape: ModelShape, w: Weights, x: torch.Tensor, times: list[int]) -> float:
    values, keys = shape.heads * shape.v_dim, shape.heads * shape.qk_dim
    for layer in range(shape.layers):
        u, v, q, k = torch.nn.functional.silu(norm(x) @ w.uvqk[layer]).split([values, values, keys, keys], dim=1)
        attended = torch.zeros_like(u)
        for i in range(x.shape[0]):
            for j in range(i + 1):
                apart = max(abs(times[i] - times[j]), 1)
                bias = w.position_bias[layer, i - j] + w.time_bias[layer, min(int(math.log2(apart)), shape.time_buckets - 1)]
                for h in range(shape.heads):
                    at, to = slice(h * shape.qk_dim, (h + 1) * shape.qk_dim), slice(h * shape.v_dim, (h + 1) * shape.v_dim)
                    score = torch.nn.functional.silu(q[i, at] @ k[j, at] / math.sqrt(shape.qk_dim) + bias)
                    attended[i, to] += score * v[j, to] / (2 * shape.tokens_max)
        x = x + (norm(attended) * u) @ w.output[layer]
    return float(norm(x[-1]) @ w.head[:, 0] + w.head_bias[0])


@pytest.mark.parametrize("layers", RANKERS)
@pytest.mark.parametrize("tokens", [1, 2, 9])
def test_scores_are_those_of_the_slow_model_that_walks_the_sequence(layers: int, tokens: int) -> None:
    ranker = RANKERS[layers]
    case = make_case(ranker.shape, tokens, candidates=3, seed=tokens)
    scores, _ = scratch(ranker, case)
    expected = slow_scores(ranker.shape, init_weights(ranker.shape, 5), case)
    assert scores.tolist() == pytest.approx(expected, abs=TOLERANCE)


def test_a_history_longer_than_a_chunk_matches_the_slow_model_too() -> None:
    case = make_case(TINY, 35, candidates=1)
    assert scratch(RANKERS[2], case)[0].tolist() == pytest.approx(slow_scores(TINY, init_weights(TINY, 5), case), abs=TOLERANCE)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_a_history_in_any_parts_gives_the_scores_and_the_cache_of_the_whole(data: st.DataObject) -> None:
    ranker = RANKERS[data.draw(st.sampled_from(sorted(RANKERS)))]
    tokens = data.draw(st.integers(1, ranker.shape.tokens_max))
    cuts = sorted(data.draw(st.sets(st.integers(1, tokens), max_size=5)) | {tokens})
    case = make_case(ranker.shape, tokens, data.draw(st.integers(1, 70)), seed=data.draw(st.integers(0, 1000)))
    scores, kv = scratch(ranker, case)
    warm_scores, warm_kv = appended(ranker, case, cuts)
    assert (warm_scores - scores).abs().max() <= TOLERANCE
    assert (warm_kv - kv).abs().max() <= TOLERANCE


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_in_bfloat16_any_split_gives_the_scores_of_the_whole(data: st.DataObject) -> None:
    shape = data.draw(st.sampled_from([TINY, DEEP]))
    ranker = HstuRanker(shape, init_weights(shape, 5), dtype=torch.bfloat16)
    tokens = data.draw(st.integers(1, shape.tokens_max))
    cut = data.draw(st.integers(0, tokens))
    case = make_case(shape, tokens, 20, seed=data.draw(st.integers(0, 1000)))
    case = case._replace(rows=case.rows.bfloat16(), candidates=case.candidates.bfloat16())
    scores, kv = scratch(ranker, case)
    warm, _ = ranker.forward(case.rows[cut:], case.actions[cut:], case.ts, kv[:cut], case.candidates)
    assert kv.dtype == torch.bfloat16
    assert (warm - scores).abs().max() <= 2e-2
    exact, _ = scratch(RANKERS[shape.layers], case._replace(rows=case.rows.float(), candidates=case.candidates.float()))
    assert (scores - exact).abs().max() <= 0.3  # eight bits of mantissa through three layers, no more


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.integers(-(2**62), 2**62), min_size=2, max_size=40), st.data())
def test_timestamps_in_any_order_and_size_stay_finite_and_keep_the_split_exact(seconds: list[int], data: st.DataObject) -> None:
    ranker = RANKERS[2]
    case = make_case(TINY, len(seconds), candidates=4)._replace(ts=torch.tensor(seconds))
    scores, _ = scratch(ranker, case)
    warm, _ = appended(ranker, case, [data.draw(st.integers(1, len(seconds) - 1)), len(seconds)])
    assert bool(torch.isfinite(scores).all())
    assert (warm - scores).abs().max() <= TOLERANCE


@pytest.mark.parametrize("cached", [64, 448, 704, 760, 767, 768])
def test_at_the_size_of_the_demo_a_kept_prefix_gives_the_scores_of_the_whole(cached: int) -> None:
    shape = load_profile("cpu-demo").model
    ranker = HstuRanker(shape, init_weights(shape, 1))
    case = make_case(shape, 768, candidates=512)
    scores, kv = scratch(ranker, case)
    warm, fresh = ranker.forward(case.rows[cached:], case.actions[cached:], case.ts, kv[:cached], case.candidates)
    assert (warm - scores).abs().max() <= TOLERANCE
    assert fresh.shape == (768 - cached, ranker.token_floats)
    assert scores.dtype == torch.float32
    assert float(scores.std()) > 0.1  # a model that answered the same to everything would pass the rest


def test_a_token_of_the_demo_takes_the_bytes_of_its_profile() -> None:
    profile = load_profile("cpu-demo")
    ranker = HstuRanker(profile.model, init_weights(profile.model, 1))
    assert ranker.token_floats * 4 == profile.kv_token_bytes == 1024


def test_a_candidate_scores_the_same_alone_and_in_any_company() -> None:
    ranker = RANKERS[3]
    case = make_case(DEEP, 20, candidates=130)
    scores, _ = scratch(ranker, case)
    order = torch.randperm(130, generator=torch.Generator().manual_seed(1))
    shuffled, _ = scratch(ranker, case._replace(candidates=case.candidates[order]))
    alone, _ = scratch(ranker, case._replace(candidates=case.candidates[77:78]))
    others = torch.cat((case.candidates[:10], torch.full((40, DEEP.dim), 1e3)))
    beside, _ = scratch(ranker, case._replace(candidates=others))
    assert (shuffled - scores[order]).abs().max() <= TOLERANCE
    assert abs(float(alone[0] - scores[77])) <= TOLERANCE
    assert (beside[:10] - scores[:10]).abs().max() <= TOLERANCE


def test_candidates_leave_no_trace_in_the_cache() -> None:
    ranker = RANKERS[3]
    case = make_case(DEEP, 20, candidates=9)
    other = case._replace(candidates=case.candidates[:1] * 7)
    assert (scratch(ranker, case)[1] - scratch(ranker, other)[1]).abs().max() <= TOLERANCE


@pytest.mark.parametrize("changed", [0, 13, 39])
def test_an_event_changes_its_own_and_later_keys_but_none_before(changed: int) -> None:
    ranker = RANKERS[3]
    case = make_case(DEEP, 40, candidates=2)
    rows = case.rows.clone()
    rows[changed] *= -1.0  # not a shift, the norm would take that away again
    before, after = scratch(ranker, case)[1], scratch(ranker, case._replace(rows=rows))[1]
    moved = (before - after).abs().amax(1)
    assert bool((moved[:changed] == 0).all())
    assert bool((moved[changed:] > 1e-6).all())


def test_an_item_does_not_see_its_own_action_and_the_next_item_does() -> None:
    ranker = RANKERS[2]
    case = make_case(TINY, 10, candidates=2)
    actions = case.actions.clone()
    actions[4] = (actions[4] + 1) % TINY.actions
    by_position = (10, TINY.layers, 2, -1)
    before = scratch(ranker, case)[1].view(by_position)
    after = scratch(ranker, case._replace(actions=actions))[1].view(by_position)
    assert torch.equal(before[4, :, 0], after[4, :, 0])
    assert not torch.equal(before[4, :, 1], after[4, :, 1])
    assert not torch.equal(before[5, 1, 0], after[5, 1, 0])


def test_only_differences_of_time_matter() -> None:
    ranker = RANKERS[2]
    case = make_case(TINY, 30, candidates=5)
    scores, kv = scratch(ranker, case)
    later_scores, later_kv = scratch(ranker, case._replace(ts=case.ts + 123_456_789))
    assert torch.equal(scores, later_scores)
    assert torch.equal(kv, later_kv)


def test_history_order_and_gaps_change_the_scores() -> None:
    ranker = RANKERS[2]
    case = make_case(TINY, 30, candidates=5)
    scores, _ = scratch(ranker, case)
    swapped, _ = scratch(ranker, case._replace(rows=case.rows.flip(0)))
    slower, _ = scratch(ranker, case._replace(ts=case.ts * 64))
    assert (swapped - scores).abs().max() > 1e-3
    assert (slower - scores).abs().max() > 1e-3


def test_what_was_returned_is_not_overwritten_by_the_next_call() -> None:
    ranker = RANKERS[2]
    scores, kv = scratch(ranker, make_case(TINY, 30, candidates=5))
    kept_scores, kept_kv = scores.clone(), kv.clone()
    scratch(ranker, make_case(TINY, 44, candidates=7, seed=9))
    assert torch.equal(scores, kept_scores)
    assert torch.equal(kv, kept_kv)


def test_a_history_at_the_maximum_is_ranked_and_one_beyond_it_is_refused() -> None:
    ranker = RANKERS[2]
    assert bool(torch.isfinite(scratch(ranker, make_case(TINY, 80, candidates=2))[0]).all())
    with pytest.raises(ValueError, match="history of 81 events, allowed are 1 to 80"):
        scratch(ranker, make_case(TINY, 81, candidates=2))


def test_parts_that_do_not_fit_together_are_refused() -> None:
    ranker = RANKERS[2]
    case = make_case(TINY, 6, candidates=2)
    with pytest.raises(ValueError, match="history of 0 events"):
        scratch(ranker, Case(case.rows[:0], case.actions[:0], case.ts[:0], case.candidates))
    with pytest.raises(ValueError, match="0 cached and 5 new events with 5 actions make no history of 6"):
        scratch(ranker, case._replace(rows=case.rows[:5], actions=case.actions[:5]))
    with pytest.raises(ValueError, match="no candidates"):
        scratch(ranker, case._replace(candidates=case.candidates[:0]))
    with pytest.raises(IndexError):
        scratch(ranker, case._replace(actions=case.actions + TINY.actions))
