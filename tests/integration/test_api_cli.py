"""The docker command line beside the pages, and while the queue is away."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.box_site import BoxSite
from tests.sockets import signed_in

SECONDS = 20
TICKS = "i=0; while :; do echo tick $i; i=$((i+1)); sleep 0.05; done"
AWAY = re.compile(r"queued as operation \d+: the queue is away; it starts when the queue is back")


class Cli:
    def __init__(self, site: BoxSite, folder: Path) -> None:
        self.environment = {
            "PATH": os.environ["PATH"],
            "DOCKER_HOST": f"unix://{site.site.home}/run/docker.sock",
            "DOCKER_CONFIG": str(folder),
            "DOCKER_BUILDKIT": "0",
        }

    def __call__(self, *words: str, code: int = 0, text: str = "") -> str:
        """stdout and stderr together."""
        done = subprocess.run(
            ["docker", *words],
            env=self.environment,
            input=text,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == code, f"{words}: {done.returncode} {done.stdout}"
        return done.stdout

    def beside(self, *words: str) -> Beside:
        return Beside(["docker", *words], self.environment)


class Beside:
    """A command that goes on, with what it has said so far."""

    def __init__(self, words: list[str], environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            words, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        self.said = b""
        self._reading = threading.Thread(target=self._read)
        self._reading.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        while more := self.process.stdout.read(65536):
            self.said += more

    def type(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)

    def says(self, wanted: bytes, after: int = 0) -> None:
        until(lambda: wanted in self.said[after:])

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reading.join()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()


def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def docker(box_site: BoxSite, tmp_path: Path) -> Iterator[Cli]:
    (tmp_path / "config").mkdir()
    yield Cli(box_site, tmp_path / "config")


def test_while_the_queue_is_away(box_site: BoxSite, docker: Cli, tmp_path: Path) -> None:
    """Reads, logs, attach, stop and kill go on; starts and builds wait, and docker says so."""
    docker("run", "-d", "--name", "ticker", "box", "sh", "-c", TICKS)
    trap = "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done"
    docker("run", "-d", "--name", "stops", "box", "sh", "-c", trap)
    docker("run", "-d", "--name", "dies", "box", "sleep", "600")
    docker(
        "run", "-di", "--name", "echoes", "box", "sh", "-c", "while read x; do echo got $x; done"
    )
    docker("create", "--name", "waits", "box", "sleep", "600")
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /kept\n")
    until(lambda: "ready" in docker("logs", "stops"))
    following, attached = docker.beside("logs", "-f", "ticker"), docker.beside("attach", "echoes")
    try:
        following.says(b"tick 1\n")
        attached.type(b"before\n")
        attached.says(b"got before\n")
        box_site.site.supervisorctl("stop", "redis")
        try:
            following.says(b"tick ", len(following.said) + 200)
            attached.type(b"during\n")
            attached.says(b"got during\n")
            later = docker.beside("attach", "echoes")
            try:
                later.type(b"later\n")
                later.says(b"got later\n")
            finally:
                later.close()
            assert "tick 0\n" in docker("logs", "ticker")
            assert docker("exec", "ticker", "echo", "inside") == "inside\n"
            assert docker("inspect", "-f", "{{.State.Status}}", "waits") == "created\n"
            assert "box" in docker("images")
            assert docker("stop", "stops") == "stops\n"
            assert docker("kill", "dies") == "dies\n"
            assert docker("wait", "stops", "dies") == "5\n137\n"
            assert AWAY.search(docker("start", "waits", code=1))
            assert AWAY.search(docker("run", "--name", "new", "box", "true", code=125))
            assert AWAY.search(docker("build", "-t", "waited", str(tmp_path), code=1))
            names = docker("ps", "-a", "--format", "{{.Names}} {{.State}}").splitlines()
            assert {"ticker running", "stops exited", "waits created", "new created"} <= {*names}
        finally:
            box_site.site.supervisorctl("start", "redis")
        until(lambda: docker("inspect", "-f", "{{.State.Status}}", "waits") == "running\n")
        until(lambda: docker("images", "-q", "waited"))
        until(lambda: docker("inspect", "-f", "{{.State.Status}}", "new") == "exited\n")
    finally:
        following.close()
        attached.close()
    docker("rmi", "waited")


async def test_a_run_is_on_the_dashboard_at_once_and_the_other_way_round(
    box_site: BoxSite, docker: Cli
) -> None:
    async def page(path: str) -> str:
        async with person.http.get(path) as answer:
            assert answer.status == 200
            return await answer.text()

    async with signed_in(box_site.url) as person, person.socket("/ws/events/") as socket:
        await socket.until(lambda one: one.messages)
        assert "from-docker" not in await page("/t/team/")
        await asyncio.to_thread(docker, "run", "-d", "--name", "from-docker", "box", "sleep", "600")
        await socket.until(
            lambda one: any(m["t"] == "changed" and m["kind"] == "container" for m in one.messages)
        )
        assert "from-docker" in await page("/t/team/")
        assert "from-docker" in await page("/t/team/containers/")
        events = docker.beside("events", "--format", "{{.Action}} {{.Actor.Attributes.name}}")
        try:
            status = await person.post("/t/team/containers/from-docker/kill/")
            assert status in (200, 202, 204, 302), status
            await asyncio.to_thread(events.says, b"die from-docker\n")
            shown = await asyncio.to_thread(
                docker, "ps", "-a", "--filter", "name=from-docker", "--format", "{{.State}}"
            )
            assert shown == "exited\n"
        finally:
            await asyncio.to_thread(events.close)
