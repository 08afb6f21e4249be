"""Eight threads want the same thing at the same moment, on the database that DATABASE_URL names.

Run as a program by `test_postgres.py`; prints one JSON object: how often each outcome occurred.
"""

import collections
import json
import os
import threading
from collections.abc import Callable

os.environ["DJANGO_SETTINGS_MODULE"] = "helmctl.settings"

import django

django.setup()

from django.core.management import call_command  # noqa: E402
from django.db import connection  # noqa: E402
from django.utils import timezone  # noqa: E402

from apps.audit.actions import SYSTEM, Actor  # noqa: E402
from apps.audit.models import AuditEntry  # noqa: E402
from apps.fleet import actions, enrolment  # noqa: E402
from apps.fleet.lifecycle import Verb  # noqa: E402
from apps.fleet.models import Node  # noqa: E402
from apps.lib.problems import Problem  # noqa: E402
from apps.outbox import dispatch  # noqa: E402
from apps.policies import training_actions as training  # noqa: E402
from apps.whatif import actions as whatif  # noqa: E402

THREADS = 8
OLGA = Actor("olga", "user", "admin")


def at_once(attempt: Callable[[int], str]) -> dict[str, int]:
    """Outcomes of all threads, started together."""
    barrier, outcomes = threading.Barrier(THREADS), []

    def run(index: int) -> None:
        try:
            barrier.wait()
            outcomes.append(attempt(index))
        except Problem as problem:
            outcomes.append(problem.code)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(index,)) for index in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return dict(collections.Counter(outcomes))


def overrides(index: int) -> str:
    wish = actions.Wish(Verb.OVERRIDE, f"thread {index}", 0.3 + index / 100, 60)
    actions.take(OLGA, "node-0", wish, '"1"', timezone.now())
    return "done"


def main() -> None:
    call_command("migrate", verbosity=0)
    dispatch.register(actions.TOPIC_COMMAND, lambda message: False)
    token = enrolment.create_token(SYSTEM, "", 600, timezone.now()).secret
    result: dict[str, object] = {"vendor": connection.vendor}

    def enrols(index: int) -> str:
        enrolment.enrol(token, "node-0" if index == 0 else f"other-{index}", "cpu-demo", "http://127.0.0.1:1", timezone.now())
        return "done"

    result["enrol"] = at_once(enrols)
    Node.objects.update(name="node-0")
    result["override"] = at_once(overrides)
    node = Node.objects.get()
    result["generation"] = node.generation
    result["entries"] = AuditEntry.objects.filter(action="node.override").count()
    run = whatif.start(OLGA, {"workload": "steady", "static_ratios": [0.3, 0.7]}, timezone.now())
    result["claim"] = at_once(lambda _: "done" if whatif.claim(str(run.uid), timezone.now()) else "lost")

    def tunes(_: int) -> str:
        training.start(OLGA, "", {}, timezone.now())
        return "done"

    result["training"] = at_once(tunes)
    seen: list[int] = []
    dispatch.register("race", lambda message: seen.append(message.pk) is None)
    message = dispatch.OutboxMessage.objects.create(topic="race", key="", payload={}, due_at=timezone.now(), created_at=timezone.now())
    result["hand_over"] = at_once(lambda _: "done" if dispatch.hand_over(message.pk) else "lost")
    result["handled"] = len(seen)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
