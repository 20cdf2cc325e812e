"""Attach over the Docker API: before the start, with half-closes, on terminals, and left."""

from __future__ import annotations

import base64
import fcntl
import os
import select
import socket
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.box_site import Box, BoxSite
from tests.engine_api import SECONDS, EngineApi, dial, frames, texts

ALL = "stream=1&stdin=1&stdout=1&stderr=1"
OUTPUT = "stream=1&stdout=1&stderr=1"


@pytest.fixture
def api(box_site: BoxSite) -> EngineApi:
    return EngineApi.of(box_site)


@pytest.fixture
def cat(box_site: BoxSite) -> Box:
    """As `docker run -i` makes it, not started."""
    return box_site.command("cat", start=False, open_stdin=True, stdin_once=True)


@pytest.fixture
def shell(box_site: BoxSite) -> Iterator[Box]:
    """A terminal that runs."""
    yield box_site.run("stty -echo; echo ready; exec cat", open_stdin=True, tty=True)


def attach(box: Box, query: str) -> str:
    return f"/v1.47/containers/{box.uid}/attach?{query}"


def test_attached_before_the_start_it_gets_every_byte(box_site: BoxSite, api: EngineApi) -> None:
    box = box_site.command("sh", "-c", "seq 1 30000; echo oops >&2", start=False, auto_remove=True)
    with closing(api.hijack(attach(box, OUTPUT))) as stream:
        assert stream.status == 101
        assert stream.headers["Content-Type"] == "application/vnd.docker.multiplexed-stream"
        assert stream.headers["Upgrade"] == "tcp"
        # As the CLI without -i: at once, and the output goes on.
        stream.half_close()
        box_site.operate(box, "start")
        data = stream.rest()
    assert texts(data, 1) == b"".join(b"%d\n" % n for n in range(1, 30001))
    assert texts(data, 2) == b"oops\n"
    box_site.call("while Container.objects.exists(): time.sleep(0.01)")  # --rm


def test_without_upgrade_the_answer_is_200(box_site: BoxSite, api: EngineApi) -> None:
    box = box_site.command("echo", "hello", start=False)
    path = f"/v1.41/containers/{box.uid}/attach?{OUTPUT}"
    with closing(api.hijack(path, upgrade=False)) as stream:
        box_site.operate(box, "start")
        assert frames(stream.rest()) == [(1, b"hello\n")]
    assert stream.status == 200
    assert stream.headers == {"Content-Type": "application/vnd.docker.raw-stream"}


def test_what_is_typed_before_the_start_waits_and_a_half_close_ends_it(
    box_site: BoxSite, api: EngineApi, cat: Box
) -> None:
    text = os.urandom(300_000)
    with closing(api.hijack(attach(cat, ALL))) as stream:
        stream.send(b"early ")
        stream.send(text[:100_000])
        box_site.operate(cat, "start")
        stream.send(text[100_000:])
        stream.half_close()
        assert texts(stream.rest()) == b"early " + text


def test_without_stdin_once_the_half_close_ends_the_stream_alone(
    box_site: BoxSite, api: EngineApi
) -> None:
    box = box_site.command("cat", open_stdin=True)
    with closing(api.hijack(attach(box, ALL))) as stream:
        stream.send(b"one\n")
        stream.until(b"one\n")
        stream.half_close()
        stream.rest()
    with closing(api.hijack(attach(box, ALL))) as stream:
        stream.send(b"two\n")
        stream.until(b"two\n")
        assert b"one" not in stream.data


def test_a_terminal_is_raw_and_quick(api: EngineApi, shell: Box) -> None:
    with closing(api.hijack(attach(shell, f"{ALL}&logs=1"))) as stream:
        assert stream.headers["Content-Type"] == "application/vnd.docker.raw-stream"
        stream.until(b"ready\r\n")
        times = []
        for number in range(30):
            began = time.monotonic()
            stream.send(b"%d\n" % number)
            stream.until(b"\n%d\r\n" % number)
            times.append(time.monotonic() - began)
    assert sorted(times)[15] < 0.02, times  # 2 ms on a machine that has nothing else to do


@pytest.mark.parametrize(
    ("query", "typed"), [("", b"\x10\x11"), ("&detachKeys=ctrl-a,d", b"\x01d")]
)
def test_detach_keys_leave_it_running(
    box_site: BoxSite, api: EngineApi, shell: Box, query: str, typed: bytes
) -> None:
    with closing(api.hijack(attach(shell, ALL + query))) as stream:
        stream.send(b"hello\n")
        stream.until(b"hello")
        stream.send(typed[:1])
        stream.send(typed[1:] + b"never seen")
        stream.rest()
    with closing(api.hijack(attach(shell, ALL))) as stream:
        stream.send(b"again\n")
        stream.until(b"again")
        assert b"never" not in stream.data
    deadline = time.monotonic() + SECONDS
    wanted = {"detach": 1, "attach": 2}
    while (
        found := box_site.call(
            """
            actions = list(Event.objects.filter(actor_id=uid).values_list("action", flat=True))
            result = {one: actions.count(one) for one in ("detach", "attach")}
            """,
            uid=shell.uid,
        )
    ) != wanted:
        # An event of a stream is written a moment behind it.
        assert time.monotonic() < deadline, found
        time.sleep(0.02)


def test_a_client_that_does_not_read_stops_nobody(box_site: BoxSite, api: EngineApi) -> None:
    box = box_site.run(
        "read x; seq 1 200000; echo done > /tmp/done; sleep 600", open_stdin=True, tty=True
    )
    with closing(api.hijack(attach(box, ALL))) as stalled:
        stalled.send(b"go\n")
        deadline = time.monotonic() + SECONDS
        while api.run_exec(box.uid, "test", "-e", "/tmp/done")[0] and time.monotonic() < deadline:
            time.sleep(0.2)
        assert api.run_exec(box.uid, "test", "-e", "/tmp/done")[0] == 0
        # And it may still have all of it.
        assert b"\r\n199999\r\n200000\r\n" in stalled.until(b"\n200000\r\n")


def test_logs_alone_end_at_once(box_site: BoxSite, api: EngineApi) -> None:
    box = box_site.run("echo one; echo two >&2; sleep 600")
    for word in (b"one\n", b"two\n"):  # conmon keeps no order between the two
        api.until_logged(box.uid, word)
    with closing(api.hijack(attach(box, "logs=1&stdout=1&stderr=1"))) as stream:
        assert sorted(frames(stream.rest())) == [(1, b"one\n"), (2, b"two\n")]


def test_a_slow_client_gets_the_head_by_itself(box_site: BoxSite, api: EngineApi) -> None:
    """docker-py loses what it reads in one piece with it."""
    box = box_site.run("echo one; sleep 600")
    api.until_logged(box.uid, b"one\n")
    request = (
        f"POST {attach(box, 'logs=1&stdout=1')} HTTP/1.1\r\nHost: docker\r\n"
        "Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n"
    )
    with closing(dial(api.path)) as client:
        client.sendall(request.encode())
        select.select([client], [], [], SECONDS)
        time.sleep(0.02)
        head = client.recv(65536)
        assert head.startswith(b"HTTP/1.1 101") and head.endswith(b"\r\n\r\n")
        data = b""
        while more := client.recv(65536):
            data += more
    assert frames(data) == [(1, b"one\n")]


def test_it_ends_when_the_container_is_removed(box_site: BoxSite, api: EngineApi) -> None:
    box = box_site.run("echo up; sleep 600")
    with closing(api.hijack(attach(box, f"{OUTPUT}&logs=1"))) as stream:
        stream.until(b"up\n")
        box_site.operate(box, "remove", force=True)
        stream.rest()
    created = box_site.command("true", start=False)
    with closing(api.hijack(attach(created, OUTPUT))) as stream:
        box_site.operate(created, "remove")
        assert stream.rest() == b""


def test_rows_alone_can_be_attached_to(box_site: BoxSite, api: EngineApi) -> None:
    """As `docker create` makes them: there is nothing of it on disk yet."""
    first, second = box_site.call(
        """
        request = ContainerRequest(image="box", command=("echo", "hello"))
        made = [container_new(namespace, request, "user:1") for _ in range(2)]
        result = [{"uid": one.uid, "name": one.name, "pk": one.pk} for one in made]
        """
    )
    with closing(api.hijack(attach(Box(**first), OUTPUT))) as stream:
        box_site.operate(Box(**first), "start")
        assert texts(stream.rest()) == b"hello\n"
    with closing(api.hijack(attach(Box(**second), OUTPUT))) as stream:
        box_site.operate(Box(**second), "remove")
        assert stream.rest() == b""


def test_the_next_start_is_attached_to_where_one_failed(box_site: BoxSite, api: EngineApi) -> None:
    box = box_site.command("sh", "-c", "echo it runs", start=False)
    with closing(api.hijack(attach(box, OUTPUT))) as stream:
        box_site.call(
            """
            made = Container.objects.get(pk=pk)
            made.settings["user"] = "nobody-of-that-name"
            made.save()
            operation = container_start(made, "user:1")
            while operation.is_open:
                time.sleep(0.02)
                operation.refresh_from_db()
            result = operation.state
            made.settings["user"] = ""
            made.save(update_fields=["settings"])
            """,
            pk=box.pk,
        )
        box_site.operate(box, "start")
        assert texts(stream.rest()) == b"it runs\n"


def test_a_websocket_carries_both_ways(box_site: BoxSite, api: EngineApi, cat: Box) -> None:
    key = base64.b64encode(os.urandom(16)).decode()
    with closing(dial(api.path)) as connection:
        connection.sendall(
            (
                f"GET /v1.47/containers/{cat.uid}/attach/ws?{ALL} HTTP/1.1\r\nHost: docker\r\n"
                "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                f"Sec-WebSocket-Key: {key}\r\n\r\n"
            ).encode()
        )
        head = connection.recv(65536)
        assert head.startswith(b"HTTP/1.1 101 "), head
        box_site.operate(cat, "start")
        # A masked text message: the mask is zero, so the text is as it is.
        connection.sendall(bytes([0x81, 0x80 | 6]) + bytes(4) + b"hello\n")
        assert _exactly(connection, 8) == bytes([0x82, 6]) + b"hello\n"


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        assert more, data
        data += more
    return data


def test_a_client_that_hangs_up_leaves_nothing(
    box_site: BoxSite, api: EngineApi, shell: Box
) -> None:
    pid = api.process()
    before = _sockets(pid)
    streams = [api.hijack(attach(shell, ALL)) for _ in range(20)]
    quiet = [api.hijack(attach(shell, OUTPUT)) for _ in range(20)]
    for stream in (*streams, *quiet):
        stream.send(b"x")
    for stream in quiet:
        stream.half_close()
    deadline = time.monotonic() + SECONDS
    while _sockets(pid) < before + 30 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert _sockets(pid) >= before + 30
    for stream in (*streams, *quiet):
        stream.close()
    deadline = time.monotonic() + SECONDS
    while _sockets(pid) > before + 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert _sockets(pid) <= before + 2


def _sockets(pid: int) -> int:
    count = 0
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            count += str(entry.readlink()).startswith("socket:")
        except FileNotFoundError:
            continue
    return count


def test_a_size_reaches_the_program(box_site: BoxSite, api: EngineApi, shell: Box) -> None:
    assert api.post(f"/v1.47/containers/{shell.uid}/resize?h=33&w=111").status == 200
    code, data = api.run_exec(shell.uid, "sh", "-c", "stty size < /dev/console")
    assert (code, texts(data)) == (0, b"33 111\n")
    assert api.post(f"/v1.47/containers/{shell.uid}/resize?h=x&w=1").status == 400


def docker(api: EngineApi, tmp_path: Path, *words: str, **more: str) -> tuple[int, str, str]:
    """The CLI itself without a terminal: (code, stdout, stderr)."""
    done = subprocess.run(
        ["docker", *words], env=environment(api, tmp_path), capture_output=True, text=True, **more
    )
    return done.returncode, done.stdout, done.stderr


def environment(api: EngineApi, tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "DOCKER_HOST": f"unix://{api.path}", "DOCKER_CONFIG": str(tmp_path)}


def test_the_cli_runs_and_pipes(api: EngineApi, box_site: BoxSite, tmp_path: Path) -> None:
    run = ("run", "--rm", "--network", "none")
    assert docker(api, tmp_path, *run, "box", "sh", "-c", "echo a; echo b >&2; exit 4") == (
        4,
        "a\n",
        "b\n",
    )
    assert docker(api, tmp_path, *run, "-i", "box", "cat", input="x\n" * 50_000) == (
        0,
        "x\n" * 50_000,
        "",
    )
    assert docker(api, tmp_path, *run, "box", "seq", "20000")[1].endswith("\n20000\n")
    box_site.call("while Container.objects.exists(): time.sleep(0.01)")


@dataclass
class Pty:
    """The CLI on a terminal of 31 rows and 97 columns."""

    process: subprocess.Popen[bytes]
    master: int
    seen: bytes = b""

    def type(self, data: bytes) -> None:
        os.write(self.master, data)

    def until(self, wanted: bytes) -> None:
        while wanted not in self.seen:
            ready, _, _ = select.select([self.master], [], [], SECONDS)
            assert ready, self.seen
            self.seen += os.read(self.master, 65536)

    def code(self) -> int:
        return self.process.wait(SECONDS)


@contextmanager
def on_a_pty(api: EngineApi, tmp_path: Path, *words: str) -> Iterator[Pty]:
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 31, 97, 0, 0))
    process = subprocess.Popen(
        ["docker", *words],
        env=environment(api, tmp_path),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    try:
        yield Pty(process, master)
    finally:
        process.kill()
        process.wait()
        os.close(master)


def test_the_cli_on_a_terminal(api: EngineApi, box_site: BoxSite, tmp_path: Path) -> None:
    run = ("run", "-it", "--name", "on-a-pty", "--network", "none")
    with on_a_pty(api, tmp_path, *run, "box", "sh", "-c", "stty size; exec sh") as terminal:
        terminal.until(b"31 97\r\n")
        terminal.type(b"echo $((6*7))\n")
        terminal.until(b"\r\n42\r\n")
        terminal.type(b"\x10\x11")
        assert terminal.code() == 0
    with on_a_pty(api, tmp_path, "attach", "on-a-pty") as terminal:
        terminal.until(b"# ")  # drawn anew, for the CLI nudges the size
        terminal.type(b"echo $((7*7)); exit 5\n")
        terminal.until(b"\r\n49\r\n")
        assert terminal.code() == 5
    with on_a_pty(api, tmp_path, "start", "-ai", "on-a-pty") as terminal:
        terminal.until(b"31 97\r\n")
        with on_a_pty(api, tmp_path, "exec", "-it", "on-a-pty", "sh") as second:
            second.until(b"# ")
            second.type(b"stty size; exit 3\n")
            second.until(b"31 97\r\n")
            assert second.code() == 3
        terminal.type(b"exit\n")
        assert terminal.code() == 0


def test_what_cannot_be_attached(box_site: BoxSite, api: EngineApi, shell: Box) -> None:
    missing = api.post("/v1.47/containers/nosuch/attach?stream=1&stdout=1")
    assert (missing.status, missing.message) == (404, "No such container: nosuch")
    assert api.post(attach(shell, f"{ALL}&detachKeys=ctrl-9")).status == 400
    assert api.post(attach(shell, "stdout=1")).status == 400
