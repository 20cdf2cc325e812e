"""Django's settings, all from the environment (README: Settings) and the home's own files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import environ
from csp.constants import NONCE, NONE, SELF
from django.utils.translation import gettext_lazy as _

from engine.config import EngineConfig

BASE_DIR = Path(__file__).resolve().parent.parent
ENGINE = EngineConfig.from_environ(os.environ)
env = environ.Env()


def _secret_key() -> str:
    """SECRET_KEY, or the one `python -m console.home` made once and keeps in the home."""
    key: str = env.str("SECRET_KEY", default="")
    if key:
        return key
    path = ENGINE.home / "secret_key"
    if not path.exists():
        raise RuntimeError(f"no secret key at {path}: run script/server, or set SECRET_KEY")
    return path.read_text().strip()


SECRET_KEY = _secret_key()
DEBUG = False
QUAYSIDE_ADDRESS: str = env.str("QUAYSIDE_ADDRESS", default="127.0.0.1")
QUAYSIDE_PORT: int = env.int("QUAYSIDE_PORT", default=8000)
QUAYSIDE_PUBLIC_HOST: str = env.str("QUAYSIDE_PUBLIC_HOST", default="")
ALLOWED_HOSTS: list[str] = env.list(
    "ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]", QUAYSIDE_ADDRESS]
)
CSRF_TRUSTED_ORIGINS: list[str] = env.list("CSRF_TRUSTED_ORIGINS", default=[])

INSTALLED_APPS = [
    "channels",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "console.apps.StaticConfig",
    "django_htmx",
    "csp",
    "engine",
    "console.apps.ConsoleAppConfig",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "console.permissions.PermissionMiddleware",
]

ROOT_URLCONF = "console.urls"
ASGI_APPLICATION = "console.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "django.template.context_processors.i18n",
                "csp.context_processors.nonce",
            ],
        },
    },
]


def _database() -> dict[str, Any]:
    """SQLite in WAL mode under the home unless DATABASE_URL says otherwise.

    IMMEDIATE, because SQLite's deferred transactions fail at once under concurrent writers.
    """
    default = f"sqlite:///{ENGINE.home / 'db' / 'quayside.sqlite3'}"
    database: dict[str, Any] = env.db_url("DATABASE_URL", default=default)
    database["CONN_MAX_AGE"] = 600
    if database["ENGINE"] == "django.db.backends.sqlite3":
        database["OPTIONS"] = {
            "timeout": 20,
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        }
        # Tests use several threads, and memory shared by threads locks whole tables.
        database["TEST"] = {"NAME": str(ENGINE.home / "db" / "test.sqlite3")}
    return database


DATABASES = {"default": _database()}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTH_USER_MODEL = "console.User"
LOGIN_URL = "sign-in"
LOGIN_REDIRECT_URL = "home"
LOGOUT_REDIRECT_URL = "sign-in"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {
        "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
        "OPTIONS": {"min_length": 10},
    },
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]

LANGUAGE_CODE = "en"
LANGUAGES = [("en", _("English")), ("ko", _("Korean"))]
LOCALE_PATHS = [BASE_DIR / "console" / "locale"]
USE_I18N = True
USE_TZ = True
TIME_ZONE = "UTC"

STATIC_URL = "/static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
STATIC_ROOT = ENGINE.home / "static"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "console.storage.HashedFiles"},
}

REDIS_URL: str = env.str("REDIS_URL", default=f"unix://{ENGINE.run_dir}/redis/redis.sock")
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        # Without socket_timeout None redis-py 8 ends each blocking read after 5 s, and the
        # socket with it.
        "CONFIG": {"hosts": [{"address": REDIS_URL, "socket_timeout": None}], "prefix": "quayside"},
    }
}

CELERY_BROKER_URL = REDIS_URL.replace("unix://", "redis+socket://", 1)
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "visibility_timeout": 24 * 3600,
    "socket_connect_timeout": 2,
    "socket_timeout": 5,
    "retry_on_timeout": False,
}
# Celery would close and open the database around each task (3 ms); operations.run drops connections
# that are of no more use.
CELERY_DB_REUSE_MAX = 2**31
CELERY_TASK_DEFAULT_QUEUE = "containers"
CELERY_TASK_ROUTES = {
    "engine.tasks.container_operation": {"queue": "containers"},
    "engine.tasks.build_operation": {"queue": "builds"},
    "engine.tasks.image_operation": {"queue": "images"},
    "engine.tasks.volume_operation": {"queue": "containers"},
    "engine.tasks.network_operation": {"queue": "containers"},
}
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
# Whoever reaches Redis could otherwise end workers, or make them serve other queues.
CELERY_WORKER_ENABLE_REMOTE_CONTROL = False

SESSION_COOKIE_NAME = f"quayside_session_{ENGINE.instance}"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_NAME = f"quayside_csrf_{ENGINE.instance}"
CSRF_COOKIE_SAMESITE = "Lax"
LANGUAGE_COOKIE_NAME = "quayside_language"
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF, NONCE],
        "style-src": [SELF],
        "img-src": [SELF, "data:"],
        "font-src": [SELF],
        "connect-src": [SELF],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
        "base-uri": [NONE],
    }
}

# An upload arrives in pieces of at most 8 MiB; anything larger in one body is a mistake.
DATA_UPLOAD_MAX_MEMORY_SIZE = 9 * 1024 * 1024
FILE_UPLOAD_MAX_MEMORY_SIZE = 0

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {"format": "{asctime} {levelname:<7} {name}: {message}", "style": "{"},
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": env.str("QUAYSIDE_LOG_LEVEL", default="INFO")},
}
