"""Passwords: checked slowly, and not too often."""

from django.contrib.auth import authenticate
from django.core.cache import cache
from django.http import HttpRequest

from apps.accounts.models import User
from apps.lib.problems import Problem, TooMany

FAILURES_MAX = 10  # a person mistypes a few times; a script tries thousands
WINDOW_SECONDS = 300


def check_password(request: HttpRequest, username: str, password: str) -> User:
    """The user, or a 401 that does not say which of the two was wrong; 429 after too many failures."""
    key = f"failures:{request.META.get('REMOTE_ADDR', '')}:{username.lower()[:150]}"
    key = key.encode().hex()
    if cache.get(key, 0) >= FAILURES_MAX:
        raise TooMany("too_many_failures", "Too many failed sign-ins: wait a few minutes.", retry_after_seconds=WINDOW_SECONDS)
    user = authenticate(request, username=username, password=password)
    if user is None:
        cache.add(key, 0, WINDOW_SECONDS)
        cache.incr(key)
        problem = Problem("wrong_credentials", "User name or password is wrong.")
        problem.status = 401
        raise problem
    cache.delete(key)
    assert isinstance(user, User)
    return user
