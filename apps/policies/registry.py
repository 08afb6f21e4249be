"""Putting a checked artefact into the registry, under the next number of its name."""

from datetime import datetime
from typing import Any, NamedTuple

from django.db import IntegrityError, transaction
from django.db.models import Max

from apps.lib.problems import Conflict
from apps.policies.artefacts import Checked
from apps.policies.models import PolicyVersion

NUMBER_ATTEMPTS = 5  # as many writers may take the same number at the same moment


class NewVersion(NamedTuple):
    """What a version is made of."""

    checked: Checked
    source: str
    state: str
    created_by: str
    state_reason: str = ""
    parent: PolicyVersion | None = None
    evaluation: dict[str, Any] | None = None


class Known(Conflict):
    """These very bytes are here already, as `version`."""

    def __init__(self, version: PolicyVersion) -> None:
        super().__init__("policy_known", f"These bytes are here already, as {version.label}.", digest=version.digest)
        self.version = version


def keep(new: NewVersion, now: datetime) -> PolicyVersion:
    """A new row; `Known` when these very bytes are here already."""
    for _ in range(NUMBER_ATTEMPTS):
        known = PolicyVersion.objects.filter(digest=new.checked.file.digest).first()
        if known is not None:
            raise Known(known)
        try:
            with transaction.atomic():
                return _insert(new, now)
        except IntegrityError:  # somebody took the number, or brought the same bytes, at the same moment
            continue
    raise Conflict("concurrent_write", "Others add versions of this name at the same moment: try again.")


def _insert(new: NewVersion, now: datetime) -> PolicyVersion:
    name = new.checked.card.name
    newest = PolicyVersion.objects.filter(name=name).aggregate(Max("number"))["number__max"] or 0
    return PolicyVersion.objects.create(
        digest=new.checked.file.digest,
        name=name,
        number=newest + 1,
        variant=new.checked.variant,
        source=new.source,
        state=new.state,
        state_reason=new.state_reason[:200],
        parent=new.parent,
        evaluation=new.evaluation,
        card=new.checked.file.card.decode(),
        weights=new.checked.file.weights,
        created_by=new.created_by,
        created_at=now,
    )
