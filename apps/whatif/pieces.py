"""A run's simulations, spread over the workers: few at a time, each with its own sign of life, one end for all of them.

A piece that ends lets the next one out; the last one puts the result together. Nothing but the database
knows where a run stands, so any worker may be lost at any time: its piece is found dead, and the run ends with it.
"""

from datetime import datetime
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Sum

from apps.jobs.life import Jobs
from apps.jobs.models import OPEN
from apps.whatif import actions
from apps.whatif.models import Piece, WhatIf
from apps.whatif.scenarios import questions, together

TOPIC_PIECE = "whatif.piece"
Status = WhatIf.Status


class PieceJobs(Jobs[Piece]):
    """Pieces are the run's business: consoles hear of the run, and a piece lives only as long as its run wants it."""

    def tell(self, row: Piece, now: datetime) -> None:
        """The run's progress is its pieces' together."""
        whatif = row.whatif
        done = whatif.pieces.aggregate(done=Sum("progress"))["done"] or 0.0
        progress = min(1.0, done / len(questions(whatif.scenario)))
        actions.heartbeat(whatif.pk, progress, _eta_seconds(whatif, progress, now), questions(whatif.scenario)[row.index].run.label, now)

    def heartbeat(self, pk: int, progress: float, eta_seconds: float | None, stage: str, now: datetime, **more: Any) -> bool:
        """False also when the run has ended or is to."""
        alive = super().heartbeat(pk, progress, eta_seconds, stage, now, **more)
        return alive and wanted(Piece.objects.get(pk=pk).whatif_id)


def _eta_seconds(whatif: WhatIf, progress: float, now: datetime) -> float | None:
    if progress < 0.02 or whatif.started_at is None:  # too early to tell
        return None
    return (now - whatif.started_at).total_seconds() * (1.0 - progress) / progress


def wanted(whatif_pk: int) -> bool:
    """Whether a run still goes on and nobody has asked for its end."""
    return WhatIf.objects.filter(pk=whatif_pk, status=Status.RUNNING, cancel_requested=False).exists()


def begin(whatif: WhatIf, now: datetime) -> None:
    """Let the first pieces of a claimed run out."""
    with transaction.atomic():
        for _ in range(min(settings.WHATIF_PIECES_AT_ONCE, len(questions(whatif.scenario)))):
            _let_out_next(whatif, now)


def _let_out_next(whatif: WhatIf, now: datetime) -> None:
    index = whatif.pieces.count()
    asked = questions(whatif.scenario)
    if index < len(asked):
        stage = asked[index].run.label
        piece = Piece.objects.create(whatif=whatif, index=index, created_by=whatif.created_by, created_at=now, stage=stage)
        PIECES.queue(piece, now)


def _ended(piece: Piece, now: datetime) -> None:
    """The next piece, or the run's own end; inside the transaction in which the piece ended."""
    whatif = WhatIf.objects.select_for_update().get(pk=piece.whatif_id)  # two last pieces must see each other
    if piece.status != Status.SUCCEEDED or not wanted(whatif.pk):
        status = Status.FAILED if piece.status == Status.FAILED and not whatif.cancel_requested else Status.CANCELLED
        actions.finish(whatif.pk, status, now, error=piece.error)
        _forget_if_over(whatif)
        return
    _let_out_next(whatif, now)
    outcomes = list(whatif.pieces.filter(status=Status.SUCCEEDED).order_by("index").values_list("outcome", flat=True))
    if len(outcomes) == len(questions(whatif.scenario)):
        actions.finish(whatif.pk, Status.SUCCEEDED, now, result=together(whatif.scenario, outcomes))
        _forget_if_over(whatif)


def _forget_if_over(whatif: WhatIf) -> None:
    if not whatif.pieces.filter(status__in=OPEN).exists():
        whatif.pieces.all().delete()


PIECES: PieceJobs = PieceJobs(Piece, "piece", TOPIC_PIECE, actions.TOPIC_PROGRESS, _ended)
claim, heartbeat, finish = PIECES.claim, PIECES.heartbeat, PIECES.finish


def reconcile(now: datetime) -> int:
    """End runs one of whose workers is gone or that wait only for a cancelled piece; send again what was lost. How many ended."""
    PIECES.reconcile(now)
    for pk in list(Piece.objects.filter(status=Status.QUEUED, whatif__cancel_requested=True).values_list("pk", flat=True)):
        finish(pk, Status.CANCELLED, now)
    # a run whose pieces wait for a free worker is not lost
    WhatIf.objects.filter(status=Status.RUNNING, pieces__status__in=OPEN).update(heartbeat_at=now)
    return actions.reconcile(now)
