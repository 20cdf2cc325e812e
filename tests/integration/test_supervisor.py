"""Each end is written down once, and tried again when that fails."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from engine.services.work.supervisor import Supervisor
from tests.machine import Machine


@contextmanager
def supervised(machine: Machine, record: Callable[[str, int], None]) -> Iterator[None]:
    machine.config.exits_dir.mkdir(exist_ok=True, parents=True)
    supervisor = Supervisor(machine.config.exits_dir, record)
    supervisor.start()
    try:
        yield
    finally:
        supervisor.stop()


def test_an_end_is_written_down_once(machine: Machine) -> None:
    """The exit file tells of it, and then conmon's end does."""
    recorded: list[tuple[str, int]] = []
    seen = threading.Semaphore(0)

    def record(uid: str, generation: int) -> None:
        recorded.append((uid, generation))
        seen.release()

    with supervised(machine, record):
        ids = [machine.create("exit 3") for _ in range(3)]
        for id in ids:
            machine.start(id)
            assert seen.acquire(timeout=10)
            machine.finish(id)
    assert recorded == [(id, 1) for id in ids]


def test_what_failed_is_tried_again(machine: Machine) -> None:
    tries: list[str] = []
    done = threading.Event()

    def record(uid: str, generation: int) -> None:
        tries.append(uid)
        if len(tries) == 1:
            raise OSError(22, "Invalid argument")
        done.set()

    with supervised(machine, record):
        id = machine.create("true")
        machine.start(id)
        assert done.wait(10)
    assert tries == [id, id]
    machine.finish(id)
