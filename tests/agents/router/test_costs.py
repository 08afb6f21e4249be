"""Whose compute costs are believed: those of the median node of a profile."""

import numpy as np
import pytest

from agents.router.router import Router
from agents.router.state import Column
from agents.wire.messages import NodeLoad, Phase
from tests.agents.router.nodes import SECOND, SMALL, load

KV = int(Column.KV)
TOKENS, CANDIDATES = 256, 10


def fleet(reports: list[NodeLoad]) -> Router:
    """A router that has heard every node twice, a second apart, and knows what is asked for."""
    made = Router([f"node-{i}" for i in range(len(reports))], SMALL)
    for now_ns in (0, SECOND):
        for index, report in enumerate(reports):
            made.node_load(index, now_ns, report)
        made.pick(now_ns, 0, TOKENS, CANDIDATES)
    return made


def of(profile: str, ms_per_token: float, **more: object) -> NodeLoad:
    return load(profile=profile, ms_per_token=ms_per_token, ms_per_token_squared=0.0, **more)


def kv_ms(router: Router, now_ns: int = SECOND) -> list[float]:
    """What a pick charges for a whole prefix on each node."""
    router.pick(now_ns, 0, TOKENS, CANDIDATES)
    return [pytest.approx(ms) for ms in router.state.scores[:, KV].tolist()]


def test_nodes_of_one_profile_are_charged_what_the_median_one_of_them_found() -> None:
    assert kv_ms(fleet([of("a", 0.04), of("a", 0.02), of("a", 0.03)])) == [0.03 * TOKENS] * 3
    assert kv_ms(fleet([of("a", 0.04), of("a", 0.02), of("a", 0.03), of("a", 0.05)])) == [0.03 * TOKENS] * 4  # the lower of two


def test_every_profile_has_its_own_median_and_a_node_that_tells_none_is_taken_at_its_word() -> None:
    assert kv_ms(fleet([of("a", 0.04), of("b", 0.01), of("a", 0.02), of("", 0.07)])) == [ms * TOKENS for ms in (0.02, 0.01, 0.02, 0.07)]


def test_the_four_coefficients_of_compute_come_from_one_node_because_they_were_fitted_together() -> None:
    mostly_fixed = of("a", 0.0, ms_fixed=10.0, ms_per_candidate=0.0)
    mostly_tokens = of("a", 0.03, ms_fixed=0.0, ms_per_candidate=0.1)  # 7.68 ms and 1 ms
    dear = of("a", 0.06, ms_fixed=0.0, ms_per_candidate=0.1)
    router = fleet([mostly_fixed, mostly_tokens, dear])
    router.pick(SECOND, 0, TOKENS, CANDIDATES)
    columns = [int(column) for column in (Column.FIXED, Column.KV, Column.CANDIDATES)]
    assert router.state.scores[:, columns].tolist() == [[10.0, 0.0, 0.0]] * 3


def test_the_cost_of_a_missing_row_stays_the_nodes_own_because_its_link_may_be_slow() -> None:
    router = fleet([of("a", 0.02, ms_per_missing_row=0.01), of("a", 0.02, ms_per_missing_row=0.03)])
    router.pick(SECOND, 0, TOKENS, CANDIDATES)
    emb = router.state.scores[:, int(Column.EMB)]
    assert emb[1] == pytest.approx(3 * emb[0])


def test_who_is_in_the_middle_is_asked_of_the_usual_request_tokens_and_candidates() -> None:
    dear_tokens, dear_candidates = of("a", 0.02, ms_per_candidate=0.0), of("a", 0.0, ms_per_candidate=0.6)  # 5.12 and 6 ms
    assert kv_ms(fleet([dear_tokens, dear_candidates, of("a", 0.2)])) == [0.0] * 3


def test_one_node_with_absurd_numbers_spoils_nobodys_prediction() -> None:
    assert kv_ms(fleet([of("a", 1e12), of("a", 0.02), of("a", 0.02)])) == [0.02 * TOKENS] * 3


def test_a_new_node_is_taken_at_its_word_until_its_profile_is_looked_at_again() -> None:
    router = fleet([of("a", 0.02), of("a", 0.02), of("a", 0.05)])
    assert kv_ms(router) == [0.02 * TOKENS] * 3
    router.node_gone(2)
    router.node_load(2, SECOND + 1, of("a", 0.05))
    assert kv_ms(router) == [ms * TOKENS for ms in (0.02, 0.02, 0.05)]
    router.node_load(0, 2 * SECOND, of("a", 0.02))
    assert kv_ms(router, 2 * SECOND) == [0.02 * TOKENS] * 3


def test_a_lost_node_no_longer_speaks_for_its_profile() -> None:
    router = fleet([of("a", 0.02), of("a", 0.03), of("a", 0.05)])
    router.node_gone(0)
    for index in (1, 2):
        router.node_load(index, 2 * SECOND, of("a", (0.02, 0.03, 0.05)[index]))
    assert kv_ms(router, 2 * SECOND)[1:] == [0.03 * TOKENS] * 2
    router.node_load(1, 3 * SECOND, of("a", 0.03, phase=Phase.OFFLINE))
    router.node_load(2, 3 * SECOND, of("a", 0.05))
    assert kv_ms(router, 3 * SECOND)[2] == 0.05 * TOKENS


@pytest.mark.parametrize(("profile", "least"), [("a", 0.20), ("", 0.0)])
def test_a_node_that_learned_too_much_in_a_slow_start_is_still_sent_users_without_a_prefix(profile: str, least: float) -> None:
    reports = [of(profile, 0.02)] * 3 + [of(profile, 0.03)]
    router = fleet(reports)
    picked = np.zeros(4)
    for user in range(1, 401):
        now_ns = SECOND + user * SECOND // 10  # so slow that no queue builds up, and shares are not capped
        choice = router.pick(now_ns, user * 7_919, TOKENS, CANDIDATES)
        picked[choice.node_index] += 1
        router.completed(now_ns, choice.reservation, None)
        for index, report in enumerate(reports):
            router.node_load(index, now_ns, report)
    share = picked[3] / picked.sum()
    assert share >= least if profile else share == 0.0
