"""What the teacher that knows the future says, from costs that are given."""

import numpy as np
import pytest

from agents.learning.clairvoyant import RATIOS, best_wishes, lesson_of
from agents.learning.clairvoyant import HeldRun as Run
from agents.learning.episode import Seen, Window
from tests.agents.learning import tiny


def bowl(middle: float) -> np.ndarray:
    return 100.0 + 100.0 * (np.array(RATIOS) - middle) ** 2


def test_a_node_far_from_the_minimum_is_sent_there() -> None:
    assert best_wishes(bowl(0.4), np.array([0.7, 0.2])).tolist() == pytest.approx([0.4, 0.4], abs=0.01)


def test_a_node_near_the_minimum_stays() -> None:
    assert best_wishes(bowl(0.4), np.array([0.45, 0.35])).tolist() == [0.45, 0.35]


def test_where_the_ratio_makes_no_difference_everybody_stays() -> None:
    assert best_wishes(np.full(5, 50.0), np.array([0.2, 0.8])).tolist() == [0.2, 0.8]


def test_the_lesson_is_what_every_held_node_should_have_wished() -> None:
    config = tiny.helm()
    runs = [Run([seen(ratio)], [Window(cost, 100, 0, np.zeros(2))]) for ratio, cost in zip(RATIOS, bowl(0.5), strict=True)]
    lesson = lesson_of(config, runs)
    assert lesson.raw.shape == (10, 20)
    assert np.sign(lesson.labels[::2]).tolist() == [1, 1, 0, -1, -1]
    assert lesson.reference.request_ms == pytest.approx(1.0)


def seen(ratio: float) -> Seen:
    return Seen(np.zeros((2, 20)), np.zeros((2, 20), np.float32), np.full(2, ratio), np.full(2, ratio), [])
