"""The same rows in PostgreSQL: migrations, operations, races, pages and whole containers.

The tests that say what must hold are those of SQLite; they run once more in a process of their
own, on a PostgreSQL of Debian's that lives for this test.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.site import ROOT

BIN = Path("/usr/lib/postgresql/15/bin")
TESTS = (
    "tests/unit/test_operations.py",
    "tests/unit/test_races.py",
    "tests/unit/test_console_pages.py",
    "tests/integration/test_services.py",
)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Where a PostgreSQL runs: data, log, socket. In /tmp: user postgres may not enter pytest's."""
    assert BIN.is_dir(), "PostgreSQL is missing: install Debian's postgresql"
    folder = Path(tempfile.mkdtemp(prefix="qs-pg-"))
    shutil.chown(folder, "postgres")
    try:
        _postgres("initdb", "-D", folder / "data", "-A", "trust", "--no-sync", "-E", "UTF8")
        settings = f"-k {folder} -c listen_addresses= -c fsync=off -c log_statement=ddl"
        log = folder / "log"
        _postgres("pg_ctl", "-D", folder / "data", "-l", log, "-w", "-o", settings, "start")
        try:
            yield folder
        finally:
            _postgres("pg_ctl", "-D", folder / "data", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)


def _postgres(program: str, *arguments: str | Path) -> None:
    user = pwd.getpwnam("postgres")
    done = subprocess.run(
        [BIN / program, *arguments],
        user=user.pw_uid,
        group=user.pw_gid,
        extra_groups=[],
        cwd="/tmp",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
    )
    assert done.returncode == 0, f"{program}: {done.stdout}"


def test_all_of_it_on_postgresql(folder: Path) -> None:
    url = f"postgres://postgres@/{folder}/quayside"
    done = subprocess.run(
        # What is measured in milliseconds is measured once, without a server beside it.
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            *("-k", "not answer_soon", *TESTS),
        ],
        cwd=ROOT,
        env={**os.environ, "TESTS_DATABASE_URL": url},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-20_000:]
    assert 'CREATE TABLE "engine_operation"' in (folder / "log").read_text()
