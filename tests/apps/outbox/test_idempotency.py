"""One key, one act, one answer."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from rest_framework.response import Response

from apps.lib.problems import Conflict, Problem, Unprocessable
from apps.outbox import idempotency
from apps.outbox.models import IdempotencyKey

pytestmark = pytest.mark.django_db


class Act:
    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> Response:
        self.count += 1
        return Response({"n": self.count}, status=202, headers={"Location": f"/{self.count}/"})


def once(act: Any, key: str | None = "key", body: dict[str, Any] | None = None, user: str = "olga") -> Response:
    return idempotency.once(user, "route", key, body or {"a": 1}, act)


def test_the_answer_is_replayed() -> None:
    act = Act()
    first, second = once(act), once(act)
    assert (act.count, first.data, second.data, second.status_code) == (1, {"n": 1}, {"n": 1}, 202)
    assert (second["Location"], second["Idempotency-Replayed"]) == ("/1/", "true")


def test_without_a_key_every_call_acts() -> None:
    act = Act()
    once(act, None)
    once(act, None)
    assert act.count == 2


def test_keys_belong_to_one_person() -> None:
    act = Act()
    once(act)
    once(act, user="oskar")
    assert act.count == 2


def test_the_same_key_with_another_body_is_refused() -> None:
    act = Act()
    once(act)
    with pytest.raises(Unprocessable):
        once(act, body={"a": 2})
    assert act.count == 1


def test_while_the_first_is_running_the_second_is_a_conflict() -> None:
    def act() -> Response:
        with pytest.raises(Conflict):
            once(Act())
        return Response({})

    once(act)


def test_a_key_is_free_again_when_the_act_failed() -> None:
    def fail() -> Response:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        once(fail)
    assert once(Act()).data == {"n": 1}


def test_a_key_is_free_again_after_a_day() -> None:
    act = Act()
    once(act)
    IdempotencyKey.objects.update(created_at=timezone.now() - timedelta(hours=25))
    once(act)
    assert act.count == 2


@pytest.mark.parametrize("key", ["", "x" * 129])
def test_a_key_has_a_sensible_length(key: str) -> None:
    with pytest.raises(Problem):
        once(Act(), key)
