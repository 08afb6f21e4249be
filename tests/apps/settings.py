"""Settings of the tests: the product's own, with a state folder and a Redis socket of their own."""

import atexit
import os
import shutil
import tempfile

# A short path: a socket's may not be longer than 107 bytes.
_FOLDER = tempfile.mkdtemp(prefix="helm-t-", dir="/tmp")
atexit.register(shutil.rmtree, _FOLDER, True)
os.environ["HELM_STATE_DIR"] = _FOLDER
os.environ["REDIS_URL"] = f"unix://{_FOLDER}/redis.sock"
os.environ["DATABASE_URL"] = os.environ.get("HELM_TEST_DATABASE_URL", "")
for _name in ("HELM_SECRET_KEY", "HELM_HOST", "HELM_PUBLIC_URL", "CELERY_BROKER_URL", "HELM_FRONTEND_DIST"):
    os.environ.pop(_name, None)

from helmctl.settings import *  # noqa: E402, F403

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # slow hashes are Django's to test

# Logs go to whoever captures them: a handler would keep the stream of the test during which it was made, closed after it.
LOGGING["handlers"] = {"stderr": {"class": "logging.NullHandler"}}  # noqa: F405
