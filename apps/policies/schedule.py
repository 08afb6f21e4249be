"""When policies are tuned by themselves: one row of beat's own table, which operators edit."""

import json
from datetime import datetime
from typing import Any, NamedTuple

from celery.schedules import ParseException, crontab
from django.db import transaction
from django_celery_beat.models import CrontabSchedule, PeriodicTask

from apps.accounts.policies import require
from apps.audit.actions import Actor, record
from apps.fleet.queries import iso
from apps.lib.permissions import Permission
from apps.lib.problems import Problem, invalid
from apps.policies import queries

NAME, TASK = "tune the policy in force", "policies.tune_on_schedule"
CRON_DEFAULT = "0 3 * * *"
_FIELDS = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")


class Plan(NamedTuple):
    """Whether, when (five fields of cron, UTC) and how much."""

    enabled: bool
    cron: str
    options: dict[str, Any]


def read(defaults: dict[str, Any], now: datetime) -> dict[str, Any]:
    """The schedule as clients see it; switched off, with these options, until somebody writes one."""
    row = PeriodicTask.objects.select_related("crontab").filter(name=NAME).first()
    if row is None or row.crontab is None:
        return _document(Plan(False, CRON_DEFAULT, defaults), None, now)
    plan = Plan(row.enabled, _cron_of(row.crontab), json.loads(row.kwargs)["options"])
    return _document(plan, row.last_run_at, now)


def write(actor: Actor, plan: Plan, defaults: dict[str, Any], now: datetime) -> dict[str, Any]:
    """Replace the schedule; beat hears of it within seconds."""
    require(actor, Permission.POLICY_MANAGE)
    fields = parse_cron(plan.cron)
    plan = plan._replace(options={**plan.options, "parent": _parent_of(plan.options)})
    with transaction.atomic():
        before = read(defaults, now)
        when = CrontabSchedule.objects.filter(timezone="UTC", **fields).first() or CrontabSchedule.objects.create(timezone="UTC", **fields)
        values = {"task": TASK, "crontab": when, "enabled": plan.enabled, "kwargs": json.dumps({"options": plan.options})}
        PeriodicTask.objects.update_or_create(name=NAME, defaults=values)
        after = read(defaults, now)
        record(actor, "training.schedule", "schedule", NAME, before=_told(before), after=_told(after), now=now)
    return after


def parse_cron(text: str) -> dict[str, str]:
    """Five fields by name; a 400 for what is no schedule."""
    words = text.split()
    if len(words) != len(_FIELDS):
        raise invalid("cron", "not_a_schedule", "Five fields are needed: minute, hour, day of month, month, day of week.")
    fields = dict(zip(_FIELDS, words, strict=True))
    try:
        crontab(**fields)
    except (ParseException, ValueError) as error:
        raise invalid("cron", "not_a_schedule", f"This is no schedule: {error}") from None
    return fields


def _parent_of(options: dict[str, Any]) -> str:
    """The whole digest of the version that is to be tuned, empty for the one that decides then; a 400 for one that is not there."""
    try:
        return queries.by_digest(options["parent"]).digest if options["parent"] else ""
    except Problem as problem:
        raise invalid("options/parent", problem.code, problem.detail) from None


def _cron_of(row: CrontabSchedule) -> str:
    return " ".join(str(getattr(row, name)) for name in _FIELDS)


def _document(plan: Plan, last_run_at: datetime | None, now: datetime) -> dict[str, Any]:
    return {
        "enabled": plan.enabled,
        "cron": plan.cron,
        "options": plan.options,
        "next_run_at": iso(_next(plan.cron, now)) if plan.enabled else None,
        "last_run_at": iso(last_run_at),
    }


def _next(cron: str, now: datetime) -> datetime:
    due = crontab(**parse_cron(cron), nowfun=lambda: now)
    return now + due.remaining_estimate(now)


def _told(document: dict[str, Any]) -> dict[str, Any]:
    return {name: document[name] for name in ("enabled", "cron", "options")}
