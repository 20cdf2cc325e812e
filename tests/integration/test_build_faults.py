"""Builds that are cancelled, killed or run out of disk leave nothing and lose nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from engine.build.solver import clean_up
from engine.errors import Cancelled, DockerfileError, NoSpace
from engine.runtime import cgroups
from tests.builder import Builder, Log, builder

__all__ = ["builder"]


def cancel_at(text: str) -> tuple[Log, threading.Event]:
    """A log that cancels the build when it sees the text in the output."""
    event = threading.Event()

    def watch(entry: Mapping[str, Any]) -> None:
        if entry["t"] == "out" and text in entry["d"]:
            event.set()

    return Log(on=watch), event


def test_a_cancelled_run_ends_at_once(builder: Builder) -> None:
    log, event = cancel_at("ready")
    begin = time.monotonic()
    with pytest.raises(Cancelled):
        builder.build(
            "FROM base\nRUN echo kept > /kept\n"
            "RUN trap '' TERM INT; (sleep 60 &); echo ready; sleep 60\nRUN never\n",
            log=log,
            cancelled=event,
        )
    assert time.monotonic() - begin < 10
    assert log.states == ["cached", "built", "cancelled"]
    assert builder.leftovers() == []
    # What was finished is kept.
    assert builder.build("FROM base\nRUN echo kept > /kept\n").states == ["cached", "cached"]


def test_cancelled_before_it_began(builder: Builder) -> None:
    event = threading.Event()
    event.set()
    with pytest.raises(Cancelled):
        builder.build("FROM base\nRUN true\n", cancelled=event)
    assert builder.log.states == ["cancelled"]


def test_cancelled_while_copying(builder: Builder) -> None:
    for n in range(300):
        builder.put(f"f{n}", str(n))
    event = threading.Event()

    def watch(entry: Mapping[str, Any]) -> None:
        if entry["t"] == "step" and entry["n"] == 2 and entry["state"] == "running":
            event.set()

    with pytest.raises(Cancelled):
        builder.build("FROM base\nCOPY . /\n", log=Log(on=watch), cancelled=event)
    assert builder.leftovers() == []


def test_cancelled_while_the_layer_is_written(builder: Builder) -> None:
    log, event = cancel_at("written")
    with pytest.raises(Cancelled, match="writing a layer"):
        builder.build(
            "FROM base\nRUN cat /bin/busybox > /big; touch /x; (echo written)\n",
            log=log,
            cancelled=_Late(event),
        )
    assert builder.leftovers() == []


class _Late(threading.Event):
    """Looks set only to who asks after the runtime has gone by: the output's last words and the
    command's end come together."""

    def __init__(self, first: threading.Event) -> None:
        super().__init__()
        self._first = first

    def is_set(self) -> bool:
        return self._first.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        time.sleep(timeout or 0)
        return False


def test_a_syntax_error_runs_nothing(builder: Builder) -> None:
    with pytest.raises(DockerfileError) as caught:
        builder.build("FROM base\nRUN true\nCOPPY a b\n")
    assert caught.value.line == 3
    assert builder.log.events == []


_WORKER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import threading
from engine.build.ports import BuildRequest
from engine.build.solver import build
from tests.builder import Builder, Log

home = Path(sys.argv[1])
home.mkdir()
builder = Builder(home)
log = Log(on=lambda event: print(event.get("d", ""), end="", flush=True))
build(
    BuildRequest("9", builder.context, "FROM base\\nRUN touch /a\\nRUN echo ready; sleep 60\\n"),
    builder.engine, log, threading.Event(),
)
"""


def test_a_killed_worker_is_cleaned_up_after(tmp_path: Path) -> None:
    home, top = tmp_path / "killed", Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", _WORKER, str(home), str(top)], stdout=subprocess.PIPE, cwd=top
    ) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"ready\n"
        os.kill(worker.pid, signal.SIGKILL)
    found = _Found(home)
    try:
        assert found.leftovers()
        clean_up("9", found.engine)
        clean_up("9", found.engine)
        assert found.leftovers() == []
    finally:
        found.close()


class _Found(Builder):
    """The home another process has made."""

    def __init__(self, home: Path) -> None:
        (home / "context").rmdir()
        base = home / "builds/9/work/root"
        assert base.is_dir()
        self._other = home
        super().__init__(home)


def test_a_second_attempt_cleans_up_by_itself(builder: Builder) -> None:
    builder.snapshots.prepare("build-5-2", None)
    (builder.config.builds_dir / "5/work/root").mkdir(parents=True)
    assert builder.build("FROM base\nRUN touch /x\n", build_id="5").states == ["cached", "built"]


def test_cleaning_up_one_build_leaves_others_alone(builder: Builder) -> None:
    for key in ("build-7-1", "build-7-1-2", "build-71-1", "build-7-x"):
        builder.snapshots.prepare(key, None)
    clean_up("7", builder.engine)
    left = {info.name for info in builder.snapshots.walk() if info.kind == "active"}
    assert left == {"build-7-1-2", "build-71-1", "build-7-x"}
    for key in left:
        builder.snapshots.remove(key)


def test_a_full_disk(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", disk], check=True)
    try:
        home = disk / "home"
        home.mkdir()
        small = Builder(home)
        try:
            small.put("big", os.urandom(9 << 20))
            with pytest.raises(NoSpace) as caught:
                small.build("FROM base\nCOPY big /one\nCOPY big /two\n")
            assert "line" in caught.value.context
            assert small.leftovers() == []
            assert small.build("FROM base\nRUN true\n").states == ["cached", "built"]
        finally:
            small.close()
    finally:
        subprocess.run(["umount", disk], check=True)


def test_no_cgroup_is_left(builder: Builder) -> None:
    builder.build("FROM base\nRUN (sleep 60 &) ; true\n")
    assert not cgroups.children(f"/{builder.config.cgroup_parent}")
