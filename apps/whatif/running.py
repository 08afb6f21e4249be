"""Carrying out one simulation of a what-if: a sign of life beside it, one end whatever happens in between."""

from collections.abc import Callable
from typing import Any, NamedTuple

from django.utils import timezone

from apps.jobs.pulse import Cancelled, Pulse, ending
from apps.whatif import pieces
from apps.whatif.models import Piece
from apps.whatif.scenarios import Question, questions


class Outcome(NamedTuple):
    """One simulation's answer: a cell of figures, series over time, and what the simulator was held against."""

    cell: dict[str, Any]
    series: dict[str, list[Any]]
    validation: dict[str, Any]


Simulate = Callable[[dict[str, Any], Question, Callable[[float], None], Callable[[], bool]], Outcome]


def carry_out(piece: Piece, simulate: Simulate) -> None:
    """Run a claimed piece to its end."""
    with ending(piece, pieces.finish):
        if not pieces.wanted(piece.whatif_id):
            raise Cancelled
        scenario = piece.whatif.scenario
        question = questions(scenario)[piece.index]
        with Pulse(piece.pk, pieces.heartbeat) as pulse:
            pulse.stage = question.run.label

            def progress(share: float) -> None:
                pulse.progress = min(max(share, 0.0), 1.0)

            outcome = simulate(scenario, question, progress, lambda: pulse.stop_wanted)
            if pulse.stop_wanted:
                raise Cancelled
        pieces.finish(piece.pk, Piece.Status.SUCCEEDED, timezone.now(), outcome=outcome._asdict())
