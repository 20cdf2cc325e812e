"""`docker run --rm`: the last lines come before the log goes, however late their reader is."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
import time
from contextlib import closing

from engine.config import EngineConfig
from engine.containers.readers import reading, wait_read
from tests.box_site import BoxSite
from tests.engine_api import EngineApi, texts
from tests.machine import Machine


def stop_between_writes(pid: int, box_site: BoxSite) -> None:
    """SIGSTOP at a moment at which it holds no lock on the database."""
    while True:
        os.kill(pid, signal.SIGSTOP)
        with closing(sqlite3.connect(box_site.site.home / "db/quayside.sqlite3", 0.5)) as database:
            try:
                database.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError:
                os.kill(pid, signal.SIGCONT)
                time.sleep(0.02)


def test_a_reader_is_waited_for_and_not_for_ever(machine: Machine) -> None:
    config: EngineConfig = machine.config
    config.run_dir.mkdir(exist_ok=True)
    id = "a" * 64
    assert wait_read(config, id, 0)
    left = threading.Event()

    def read() -> None:
        with reading(config, id):
            left.wait(5)

    reader = threading.Thread(target=read)
    reader.start()
    while wait_read(config, id, 0):
        time.sleep(0.01)
    assert not wait_read(config, id, 0.05)
    left.set()
    assert wait_read(config, id, 5)
    reader.join()
    assert list((config.run_dir / "readers").iterdir()) == []


def test_the_last_lines_of_one_that_removes_itself(box_site: BoxSite) -> None:
    api = EngineApi.of(box_site)
    body = {"Image": "box", "Cmd": ["seq", "1000"], "HostConfig": {"AutoRemove": True}}
    id = api.post("/containers/create", body).json["Id"]
    with closing(api.hijack(f"/containers/{id}/attach?stream=1&stdout=1")) as stream:
        pid = api.process()
        stop_between_writes(pid, box_site)
        try:
            box_site.call('done(container_start(Container.objects.get(uid=id), "user:1"))', id=id)
            time.sleep(0.7)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert texts(stream.rest()) == b"".join(b"%d\n" % n for n in range(1, 1001))
    deadline = time.monotonic() + 10
    while api.get(f"/containers/{id}/json").status != 404:
        assert time.monotonic() < deadline
        time.sleep(0.05)
