"""States of a run and their groups (pure)."""

from apps.whatif.models import WhatIf

Status = WhatIf.Status
OPEN = (Status.QUEUED, Status.RUNNING)
TERMINAL = (Status.SUCCEEDED, Status.FAILED, Status.CANCELLED)


def is_terminal(status: str) -> bool:
    """Will this run never change again?"""
    return status in TERMINAL
