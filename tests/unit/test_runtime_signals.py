"""Names of signals; inotify; processes by more than their pid."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from engine.errors import InvalidInput
from engine.runtime import inotify, processes
from engine.runtime.processes import ProcessRef
from engine.runtime.signals import signal_number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("SIGTERM", 15),
        ("term", 15),
        ("9", 9),
        (" SIGUSR1 ", 10),
        ("RTMIN", signal.SIGRTMIN),
        ("SIGRTMIN+3", signal.SIGRTMIN + 3),
        ("RTMAX-1", signal.SIGRTMAX - 1),
        ("64", 64),
    ],
)
def test_signals(text: str, number: int) -> None:
    assert signal_number(text) == number


@pytest.mark.parametrize("text", ["", "0", "65", "SIGNOPE", "RTMIN+99", "RTMAX+1", "-9", "SIG_DFL"])
def test_what_is_no_signal(text: str) -> None:
    with pytest.raises(InvalidInput):
        signal_number(text)


def test_inotify_tells_what_happened_where(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    with inotify.Inotify() as watch:
        assert watch.read() == []
        first = watch.add(one, inotify.CREATE | inotify.ONLYDIR)
        watch.add(two, inotify.MOVED_TO)
        (one / "x").write_text("")
        (one / "x").rename(two / "y")
        events = [(event.directory, event.name) for event in watch.read()]
        assert events == [(one, "x"), (two, "y")]
        watch.remove(first)
        watch.remove(first)
        assert watch.read()[0].mask & inotify.IGNORED
        with pytest.raises(NotADirectoryError):
            watch.add(two / "y", inotify.CREATE | inotify.ONLYDIR)
        with pytest.raises(FileNotFoundError):
            watch.add(tmp_path / "none", inotify.CREATE)


def test_a_process_is_more_than_its_pid(tmp_path: Path) -> None:
    word = str(tmp_path / "word")
    with subprocess.Popen(["sh", "-c", "read x", word], stdin=subprocess.PIPE) as child:
        found = ProcessRef.of(child.pid)
        assert found is not None and found.alive()
        assert processes.find(word) == [found]
        stranger = ProcessRef(found.pid, found.start + 1)
        assert not stranger.alive() and not stranger.send(signal.SIGKILL) and stranger.wait(0)
        assert not found.wait(0)
        processes.end_all(word, 5)
        assert found.wait(5) and not found.alive()  # a zombie has ended
    assert child.returncode == -signal.SIGKILL
    assert ProcessRef.of(child.pid) is None
    own = ProcessRef.of(os.getpid())
    assert own is not None and own.alive()
