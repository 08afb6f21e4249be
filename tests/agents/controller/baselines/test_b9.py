import pytest

from agents.controller.baselines.b9 import B9
from agents.wire.messages import GuardRails
from tests.agents.controller.observations import observe

RAILS = GuardRails()


@pytest.mark.parametrize(
    ("emb_hit", "kv_hit", "kv_used", "wish", "reason"),
    [
        (0.9, 0.5, 0.95, 0.46, "kv_watermark"),
        (0.7, 0.7, 0.95, 0.54, "emb_watermark"),
        (0.9, 0.7, 0.95, 0.5, "drift_home"),  # both are above their goals
        (0.9, 0.5, 0.5, 0.5, "drift_home"),  # KV has room
        (0.81, 0.61, 1.0, 0.5, "drift_home"),  # within two points of the goals
    ],
)
def test_the_watermarks_move_one_step(emb_hit: float, kv_hit: float, kv_used: float, wish: float, reason: str) -> None:
    proposal = B9(RAILS).propose(observe(emb_hit_ratio=emb_hit, kv_hit_ratio=kv_hit, kv_used_ratio=kv_used))
    assert proposal == (pytest.approx(wish), reason, {"watermark": pytest.approx(wish)})


def test_between_the_watermarks_it_drifts_home_a_tenth_of_a_step_at_a_time() -> None:
    method = B9(RAILS)
    scene = observe(emb_ratio=0.55, emb_hit_ratio=0.5, kv_hit_ratio=0.5)
    assert [method.propose(scene).emb_ratio for _ in range(3)] == pytest.approx([0.546, 0.542, 0.538])


def test_a_node_moved_by_somebody_else_is_followed() -> None:
    method = B9(RAILS)
    method.propose(observe(emb_ratio=0.5, kv_hit_ratio=0.9, emb_hit_ratio=0.5))
    assert method.propose(observe(emb_ratio=0.3, kv_hit_ratio=0.9, emb_hit_ratio=0.5)).emb_ratio == pytest.approx(0.34)


def test_unknown_hit_ratios_move_nothing_but_home() -> None:
    nan = float("nan")
    assert B9(RAILS).propose(observe(emb_hit_ratio=nan, kv_hit_ratio=nan)) == (0.5, "drift_home", {"watermark": 0.5})


def test_the_floor_stops_it() -> None:
    method = B9(GuardRails(emb_ratio_min=0.45))
    scene = observe(emb_hit_ratio=0.99, kv_hit_ratio=0.1)
    assert [method.propose(scene).emb_ratio for _ in range(3)] == pytest.approx([0.46, 0.45, 0.45])


def test_an_impossible_goal_is_refused() -> None:
    with pytest.raises(ValueError, match="kv_hit_goal"):
        B9(RAILS, kv_hit_goal=1.0)
