"""The docker command line beside the pages, and while the queue is away."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.box_site import BoxSite
from tests.registry import PASSWORD, USER, push_image, running_registry, tar_of
from tests.registry_faults import faulty_registry
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


def test_images_while_the_queue_is_away(box_site: BoxSite, docker: Cli, tmp_path: Path) -> None:
    """What is sent or fetched waits, with its sign-in, and docker says so; what is here goes out;
    what a worker has begun ends."""
    with (
        running_registry(tmp_path, "basic") as registry,
        faulty_registry(registry.address) as slow,
        ExitStack() as after,
    ):
        push_image(registry, "mine", layers=[tar_of({"mine": b"0"})])
        push_image(registry, "one", layers=[tar_of({"one": b"1"})])
        push_image(registry, "big", layers=[tar_of({"big": os.urandom(1 << 20)})])
        here, there = registry.address, slow.address
        for address in (here, there):
            docker("login", "-u", USER, "--password-stdin", address, text=PASSWORD)
        docker("pull", "-q", f"{here}/mine")
        docker("tag", f"{here}/mine", f"{here}/pushed")
        docker("save", "-o", str(tmp_path / "mine.tar"), f"{here}/mine")
        tar = tmp_path / "root.tar"
        tar.write_bytes(tar_of({"sent": b"by import"}))
        (tmp_path / "Dockerfile").write_text(f"FROM {here}/one\n")
        slow.rule("/blobs/", rate=64 << 10)
        begun = docker.beside("pull", f"{there}/big")
        after.callback(begun.close)
        until(lambda: slow.requests("/blobs/"))  # in the middle of its first
        box_site.site.supervisorctl("stop", "redis")
        try:
            waits = (
                ("pull", f"{here}/one"),
                ("pull", "-q", f"{here}/one"),
                ("pull", "-a", f"{here}/one"),
                ("load", "-i", str(tmp_path / "mine.tar")),
                ("load", "-q", "-i", str(tmp_path / "mine.tar")),
                ("push", f"{here}/pushed"),
                ("import", str(tar), "sent"),
                ("build", "-t", "sent:too", str(tmp_path)),
            )
            with ThreadPoolExecutor(len(waits)) as pool:
                for words, said in zip(
                    waits, pool.map(lambda words: docker(*words, code=1), waits), strict=True
                ):
                    assert AWAY.search(said), (words, said)
            docker("save", "-o", str(tmp_path / "again.tar"), f"{here}/mine")
            assert (tmp_path / "again.tar").read_bytes() == (tmp_path / "mine.tar").read_bytes()
            slow.clear()
            assert begun.process.wait(SECONDS) == 0
            begun.says(b"Status: Downloaded newer image for")
        finally:
            box_site.site.supervisorctl("start", "redis")
        until(lambda: box_site.call("result = not Operation.objects.open().exists()"))
        failed = box_site.call(
            "result = [o.error for o in Operation.objects.filter(kind__startswith='image.')"
            " if o.state != 'done']"
        )
        assert not failed
        assert {"latest", "too"} == set(
            docker("images", "--format", "{{.Tag}}", "sent").splitlines()
        )
        # Somebody's password stays no longer than it is needed.
        until(lambda: not list((box_site.site.home / "run" / "auth").iterdir()))
        docker("rmi", f"{here}/pushed")
        assert "Status: " in docker("pull", f"{here}/pushed")
        names = docker("images", "--format", "{{.Repository}}:{{.Tag}}").split()
        docker("rmi", *(name for name in names if name != "box:latest"))


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
