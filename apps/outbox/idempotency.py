"""Idempotency keys on POST: the same key and body get the same answer, once."""

import hashlib
import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from django.db import IntegrityError, transaction
from django.utils import timezone
from rest_framework.response import Response

from apps.lib.problems import Conflict, FieldError, Problem, Unprocessable
from apps.outbox.models import IdempotencyKey

KEEP = timedelta(hours=24)
KEY_LENGTH_MAX = 128


def once(user_name: str, route: str, key: str | None, body: dict[str, Any], act: Callable[[], Response]) -> Response:
    """Run `act` once per key; replay its answer afterwards. Without a key, just run it."""
    if key is None:
        return act()
    if not 0 < len(key) <= KEY_LENGTH_MAX:
        raise Problem("invalid_request", "Idempotency-Key: 1 to 128 characters", [FieldError("", "idempotency_key", "1 to 128 characters")])
    digest = hashlib.sha256(json.dumps(body, sort_keys=True, default=str).encode()).hexdigest()
    row = _claim(user_name, route, key, digest)
    if row is None:
        return _replay(user_name, route, key, digest)
    try:
        response = act()
    except BaseException:
        row.delete()
        raise
    headers = {name: response[name] for name in ("Location", "ETag") if name in response}
    IdempotencyKey.objects.filter(pk=row.pk).update(status_code=response.status_code, response=response.data, headers=headers)
    return response


def prune(now: datetime) -> int:
    """Forget keys older than a day."""
    return IdempotencyKey.objects.filter(created_at__lt=now - KEEP).delete()[0]


def _claim(user_name: str, route: str, key: str, digest: str) -> IdempotencyKey | None:
    now = timezone.now()
    IdempotencyKey.objects.filter(user_name=user_name, route=route, key=key, created_at__lt=now - KEEP).delete()
    try:
        with transaction.atomic():
            return IdempotencyKey.objects.create(user_name=user_name, route=route, key=key, request_digest=digest, created_at=now)
    except IntegrityError:
        return None


def _replay(user_name: str, route: str, key: str, digest: str) -> Response:
    row = IdempotencyKey.objects.filter(user_name=user_name, route=route, key=key).first()
    if row is None or row.status_code is None:
        raise Conflict("idempotency_in_progress", "The first request with this Idempotency-Key is still running.")
    if row.request_digest != digest:
        raise Unprocessable("idempotency_key_reused", "This Idempotency-Key was used with another body.")
    return Response(row.response, status=row.status_code, headers={**row.headers, "Idempotency-Replayed": "true"})
