"""A home of its own for the whole test run, set before Django's settings are read."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

_HOME = Path(tempfile.mkdtemp(prefix="quayside-tests-"))
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
for _name in [name for name in os.environ if name.startswith("QUAYSIDE_")]:
    del os.environ[_name]
os.environ.pop("DATABASE_URL", None)
os.environ.pop("REDIS_URL", None)
os.environ["QUAYSIDE_HOME"] = str(_HOME)
os.environ["SECRET_KEY"] = "only-for-tests"
for _folder in ("db", "uploads", "static"):
    (_HOME / _folder).mkdir()


@pytest.fixture(scope="session", autouse=True)
def _plain_static_files() -> Iterator[None]:
    """Pages name static files without the manifest that only collectstatic makes."""
    from django.test import override_settings

    storage = "django.contrib.staticfiles.storage.StaticFilesStorage"
    default = "django.core.files.storage.FileSystemStorage"
    with override_settings(
        STORAGES={"default": {"BACKEND": default}, "staticfiles": {"BACKEND": storage}}
    ):
        yield
