"""The policies that come with the product, put into the registry."""

import logging

from django.utils import timezone

from agents.artifacts.policy_file import ArtefactError
from agents.artifacts.shipped import shipped_policy
from apps.policies.artefacts import VARIANTS, checked_file
from apps.policies.models import PolicyVersion
from apps.policies.registry import NewVersion, keep

logger = logging.getLogger(__name__)
SHIPPED = "shipped"  # who made them, as far as this installation knows


def register_shipped() -> int:
    """Add what is not there yet; returns how many. Nobody changed anything, so the audit log hears nothing."""
    return sum(_register(name) for name in VARIANTS)


def _register(name: str) -> bool:
    file = shipped_policy(name)
    if file is None or PolicyVersion.objects.filter(digest=file.digest).exists():
        return False
    try:
        checked = checked_file(file.weights, file.card)
    except ArtefactError as error:
        logger.error("the policy %s that came with this version is refused: %s", name, error)
        return False
    told = checked.card.evaluation or None  # the comparison that its training ended with
    keep(NewVersion(checked, PolicyVersion.Source.SHIPPED, PolicyVersion.State.USABLE, SHIPPED, evaluation=told), timezone.now())
    return True
