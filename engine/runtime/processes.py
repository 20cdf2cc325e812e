"""Processes named so that the name outlives them: pid, start time and boot.

A pid alone may be somebody else's tomorrow. Every wait is on a pidfd: nothing is polled and
nobody else's process is ever signalled.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from engine.errors import EngineError


@dataclass(frozen=True, slots=True)
class ProcessRef:
    """`start` is field 22 of /proc/PID/stat (clock ticks since boot)."""

    pid: int
    start: int

    @classmethod
    def of(cls, pid: int) -> ProcessRef | None:
        """The process that has this pid now; None when there is none (a zombie is one)."""
        start = start_time(pid)
        return None if start is None else cls(pid, start)

    def open(self) -> int | None:
        """A pidfd of exactly this process, the caller's to close; None when it is gone."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return None
        # Checked after opening: the pidfd holds on to what it names.
        if start_time(self.pid) == self.start:
            return descriptor
        os.close(descriptor)
        return None

    @contextmanager
    def opened(self) -> Iterator[int | None]:
        """The same for a with block."""
        descriptor = self.open()
        try:
            yield descriptor
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def alive(self) -> bool:
        """Whether it still runs; a zombie has ended."""
        with self.opened() as descriptor:
            return descriptor is not None and not wait(descriptor, 0)

    def send(self, number: int) -> bool:
        """A signal for exactly this process; False when it is gone."""
        with self.opened() as descriptor:
            if descriptor is None:
                return False
            try:
                signal.pidfd_send_signal(descriptor, number)
            except ProcessLookupError:
                return False
            return True

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for its end; False when `timeout` seconds passed first."""
        with self.opened() as descriptor:
            return descriptor is None or wait(descriptor, timeout)


def wait(descriptor: int, timeout: float | None) -> bool:
    """Wait until `descriptor` (a pidfd or another) is readable; False after `timeout` seconds."""
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    return bool(poller.poll(None if timeout is None else max(0.0, timeout) * 1000))


def start_time(pid: int) -> int | None:
    """Field 22 of /proc/PID/stat; None when there is no such process."""
    content = _read(f"/proc/{pid}/stat")
    # The command's name may hold spaces and brackets: count from its last bracket.
    return int(content[content.rindex(b")") + 2 :].split()[19]) if content else None


@cache
def boot_id() -> str:
    """Differs after each boot: pids and start times of another one mean nothing."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def find(*words: str) -> list[ProcessRef]:
    """Processes that have all of `words` among their arguments. For reconciling: reads all."""
    wanted = {word.encode() for word in words}
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and wanted <= set(
            _read(f"/proc/{entry.name}/cmdline").split(b"\0")
        ):
            reference = ProcessRef.of(int(entry.name))
            if reference is not None:
                found.append(reference)
    return found


def end_all(word: str, timeout: float) -> None:
    """SIGKILL for every process with `word` among its arguments, until there is none.

    For what a killed process of ours started and nobody waits for: the word is a path of that
    attempt alone. Waits for each end, so that nothing is made any more when this returns. Raises
    EngineError when one does not die within `timeout` seconds.
    """
    while found := find(word):
        for process in found:
            process.send(signal.SIGKILL)
            if not process.wait(timeout):
                raise EngineError(f"process {process.pid} survives SIGKILL", pid=process.pid)


def _read(path: str) -> bytes:
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(path).read_bytes()
    return b""
