"""Worker and beat say that they live: a key in Redis with a short life, which `helmctl.supervisor.health` asks for.

The worker says so from the loop that takes tasks, beat from the loop that sends them, so a process that hangs,
or has lost its broker, falls silent although it runs.
"""

import logging

import redis
from django.conf import settings

from helmctl.supervisor.health import alive_key

TTL_SECONDS = 20  # both say so every 5 s or oftener; three missed on a busy machine are no death
TIMEOUT_SECONDS = 2.0  # the loop that says so has work to do

logger = logging.getLogger(__name__)
_client = redis.Redis.from_url(settings.REDIS_URL, socket_timeout=TIMEOUT_SECONDS, socket_connect_timeout=TIMEOUT_SECONDS)


def say_alive(name: str) -> None:
    """Renew the sign of life of this machine's process `name`; a Redis that is away makes it silent, not dead."""
    try:
        _client.set(alive_key(name), 1, ex=TTL_SECONDS)
    except redis.RedisError as error:
        logger.warning("no sign of life of %s could be left: %s", name, error)


def fall_silent(name: str) -> None:
    """Take the sign away at a planned end, so that a start soon after is not taken for done."""
    try:
        _client.delete(alive_key(name))
    except redis.RedisError as error:
        logger.warning("the sign of life of %s stays until it expires: %s", name, error)
