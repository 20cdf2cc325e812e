"""A home of its own for the whole test run, set before Django's settings are read.

Loaded as an early plugin (`-p tests.home` in pyproject.toml): pytest-django reads the settings
before any conftest.py.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

from tests.pools import free_pool

_HOME = Path(tempfile.mkdtemp(prefix="quayside-tests-"))
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
for _name in [name for name in os.environ if name.startswith("QUAYSIDE_")]:
    del os.environ[_name]
os.environ.pop("DATABASE_URL", None)
# Another database than SQLite in the home: tests/integration/test_postgres.py asks for it.
if _database := os.environ.pop("TESTS_DATABASE_URL", ""):
    os.environ["DATABASE_URL"] = _database
os.environ.pop("REDIS_URL", None)
os.environ["QUAYSIDE_HOME"] = str(_HOME)
os.environ["QUAYSIDE_ADDRESS_POOL"] = free_pool()
os.environ["SECRET_KEY"] = "only-for-tests"
for _folder in ("db", "uploads", "static"):
    (_HOME / _folder).mkdir()
