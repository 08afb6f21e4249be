"""Settings of the control plane: the environment is read here, once, strictly.

Small readers fail loudly with the variable's name. A secret may come from a file
(`NAME_FILE`). What operators tune at run time are rows, not settings.
"""

import os
import secrets
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured

BASE_DIR = Path(__file__).resolve().parent.parent


def _text(name: str, default: str = "") -> str:
    """Value of `name`, or of the file named by `name_FILE`."""
    path = os.environ.get(f"{name}_FILE")
    if path:
        try:
            return Path(path).read_text("utf-8").strip()
        except OSError as error:
            raise ImproperlyConfigured(f"{name}_FILE: {error}") from error
    return os.environ.get(name, default).strip()


def _flag(name: str, default: bool) -> bool:
    """`1|true|yes` or `0|false|no`; anything else is an error, never a guess."""
    word = _text(name).lower()
    if not word:
        return default
    if word in {"1", "true", "yes"}:
        return True
    if word in {"0", "false", "no"}:
        return False
    raise ImproperlyConfigured(f"{name}: expected true or false, got {word!r}")


def _whole(name: str, default: int, most: int) -> int:
    """A whole number from 1 to `most`."""
    word = _text(name)
    if not word:
        return default
    if not (word.isascii() and word.isdigit() and 1 <= int(word) <= most):
        raise ImproperlyConfigured(f"{name}: expected a whole number from 1 to {most}, got {word!r}")
    return int(word)


def _database(url: str, state_dir: Path) -> dict[str, object]:
    """Django's database settings from `sqlite:///path` or `postgres://user:password@host:port/name`."""
    parts = urlsplit(url)
    if not url or parts.scheme == "sqlite":
        path = Path(unquote(parts.path)) if url and parts.path not in {"", "/"} else state_dir / "helm.sqlite3"
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": str(path),
            # WAL lets consoles read while frames are written; IMMEDIATE takes the write lock at BEGIN, so two
            # writers queue for the busy timeout instead of failing at the first write.
            "OPTIONS": {
                "transaction_mode": "IMMEDIATE",
                "timeout": 20,
                "init_command": "PRAGMA journal_mode=WAL;PRAGMA synchronous=NORMAL;PRAGMA busy_timeout=20000;",
            },
        }
    if parts.scheme not in {"postgres", "postgresql"}:
        raise ImproperlyConfigured(f"DATABASE_URL: unknown scheme {parts.scheme!r}, use sqlite or postgres")
    query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": unquote(parts.path.lstrip("/")),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": query.pop("host", "") or (parts.hostname or ""),
        "PORT": str(parts.port or ""),
        "OPTIONS": query,
        # Threads of an ASGI server keep no connection of their own between requests.
        "CONN_MAX_AGE": 0,
    }


def _redis(name: str, default: str) -> str:
    """A `redis://`, `rediss://` or `unix://` address."""
    url = _text(name, default)
    if urlsplit(url).scheme not in {"redis", "rediss", "unix"}:
        raise ImproperlyConfigured(f"{name}: use redis://, rediss:// or unix://, got {url!r}")
    return url


def _broker(name: str, default: str) -> str:
    """A broker address in Celery's words, where a socket is `redis+socket://`."""
    url = _text(name, default)
    parts = urlsplit(url)
    if parts.scheme != "unix":
        return url
    user = f":{parts.password}@" if parts.password else ""
    number = parse_qs(parts.query).get("db", ["0"])[-1]
    return f"redis+socket://{user}{parts.path}?virtual_host={number}"


def _secret_key(state_dir: Path) -> str:
    """The signing key: from the environment, else made once and kept in the state folder (0600)."""
    given = _text("HELM_SECRET_KEY")
    if given:
        return given
    path = state_dir / "secret_key"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text("utf-8").strip()
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        key = secrets.token_urlsafe(48)
        file.write(key)
    return key


def _public_url() -> tuple[str, str]:
    """Scheme and host of the one address people use; everything about cookies and hosts follows from it."""
    host = _text("HELM_HOST", "127.0.0.1")
    url = _text("HELM_PUBLIC_URL") or f"http://{host}:{_text('HELM_PORT', '8700')}"
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ImproperlyConfigured(f"HELM_PUBLIC_URL: expected http(s)://host[:port], got {url!r}")
    return parts.scheme, parts.netloc


STATE_DIR = Path(_text("HELM_STATE_DIR", str(BASE_DIR / ".helm"))).absolute()
STATE_DIR.mkdir(mode=0o700, parents=True, exist_ok=True)
FLEET_FILE = Path(_text("HELM_FLEET_FILE", str(STATE_DIR / "fleet.json")))  # where the router is, for the console's routing page

WHATIF_PIECES_AT_ONCE = _whole("HELM_WHATIF_PIECES_AT_ONCE", 2, 64)  # of one run; roll-ups need a slot of the workers too
# Where nodes of this machine record what they serve, and where an operator may put the journals of others: what training learns from.
JOURNAL_DIR = Path(_text("HELM_JOURNAL_DIR", str(STATE_DIR / "journals")))

SECRET_KEY = _secret_key(STATE_DIR)
DEBUG = _flag("HELM_DEBUG", default=False)
PUBLIC_SCHEME, PUBLIC_NETLOC = _public_url()
PUBLIC_URL = f"{PUBLIC_SCHEME}://{PUBLIC_NETLOC}"
_public_host = urlsplit(PUBLIC_URL).hostname or "127.0.0.1"
# 0.0.0.0 means "seen from elsewhere under a name we cannot know": then any Host header is served, and the
# origin checks below compare with that header.
ALLOWED_HOSTS = ["*"] if _public_host in {"0.0.0.0", "::"} else sorted({_public_host, "127.0.0.1", "localhost", "[::1]"})  # noqa: S104
ALLOWED_HOSTS += [host for host in _text("HELM_ALLOWED_HOSTS").split(",") if host]
CSRF_TRUSTED_ORIGINS = [PUBLIC_URL] if PUBLIC_SCHEME == "https" else []
CSRF_TRUSTED_ORIGINS += [origin for origin in _text("HELM_ALLOWED_ORIGINS").split(",") if origin]
# Secure cookies over plain http make every login fail without a word, so they follow the address.
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = PUBLIC_SCHEME == "https"
SESSION_COOKIE_NAME, CSRF_COOKIE_NAME = "helm_session", "helm_csrf"
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_AGE = 12 * 3600  # one shift
if PUBLIC_SCHEME == "https":
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SECURE_CONTENT_TYPE_NOSNIFF = True
X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "channels",
    "rest_framework",
    "django_filters",
    "django_celery_beat",
    "drf_spectacular",
    "apps.outbox",
    "apps.audit",
    "apps.accounts",
    "apps.fleet",
    "apps.telemetry",
    "apps.whatif",
    "apps.policies",
    "apps.live",
    "helmctl.apps.HelmctlConfig",
]
MIDDLEWARE = [
    "apps.lib.request_id.RequestIdMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.middleware.common.CommonMiddleware",  # refuses unknown hosts before anything else is asked
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
APPEND_SLASH = False  # a redirected POST would lose its body
ROOT_URLCONF = "helmctl.urls"
ASGI_APPLICATION = "helmctl.asgi.application"
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True, "DIRS": [], "OPTIONS": {}}]

DATABASES = {"default": _database(_text("DATABASE_URL"), STATE_DIR)}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
AUTH_USER_MODEL = "accounts.User"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]

REDIS_URL = _redis("REDIS_URL", "redis://127.0.0.1:6379/0")
CHANNEL_LAYERS = {
    "default": {"BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer", "CONFIG": {"hosts": [REDIS_URL], "prefix": "helm"}},
}
CELERY_BROKER_URL = _broker("CELERY_BROKER_URL", REDIS_URL)
DJANGO_CELERY_BEAT_TZ_AWARE = True
CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}

USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en"
USE_I18N = False

STATIC_URL = "/static/"
FRONTEND_DIST = Path(_text("HELM_FRONTEND_DIST", str(BASE_DIR / "frontend" / "dist")))
# The bundle's files lie at the root of the site; `index.html` itself is answered by a view that sets the CSRF cookie.
WHITENOISE_ROOT = FRONTEND_DIST if FRONTEND_DIST.is_dir() else None
WHITENOISE_INDEX_FILE = False
WHITENOISE_AUTOREFRESH = DEBUG
WHITENOISE_IMMUTABLE_FILE_TEST = r"^/assets/"  # the build puts a hash into every name there

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "apps.accounts.authentication.BearerTokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["apps.accounts.permissions.MayRead"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["apps.lib.parsing.JsonObjectParser"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "apps.lib.problem_answers.exception_handler",
    "DEFAULT_VERSIONING_CLASS": None,
    "UNAUTHENTICATED_USER": "django.contrib.auth.models.AnonymousUser",
    "COERCE_DECIMAL_TO_STRING": False,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "HELM control plane",
    "VERSION": "1.0.0",
    "DESCRIPTION": "One HBM pool, two caches: watch the fleet, take a node by hand, ask what if.",
    "OAS_VERSION": "3.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "COMPONENT_SPLIT_REQUEST": True,
    "ENUM_NAME_OVERRIDES": {
        "SpecModeEnum": ["auto", "override", "pin"],
        "StatusModeEnum": ["auto", "override", "pin", "recovery", "demoted"],
        "ControllerModeEnum": ["active", "advisory", "off"],
        "ConditionStatusEnum": ["True", "False", "Unknown"],
        "JobStatusEnum": "apps.jobs.models.Job.Status",
    },
    "POSTPROCESSING_HOOKS": ["drf_spectacular.hooks.postprocess_schema_enums", "apps.lib.schema.add_problems"],
    "SCHEMA_PATH_PREFIX": r"/api/v1",
    "SCHEMA_PATH_PREFIX_TRIM": False,
}

LOG_LEVEL = _text("HELM_LOG_LEVEL", "INFO").upper()
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": LOG_LEVEL},
    # A refusal is the client's news; the access log has it already.
    "loggers": {"django.request": {"level": "ERROR"}},
}
