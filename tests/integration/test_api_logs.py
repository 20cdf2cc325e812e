"""Logs over the Docker API: every option, frames as Docker's, many followers, stalled ones."""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path

import pytest

from tests.box_site import Box, BoxSite
from tests.engine_api import EngineApi, dial, frames, texts

BOTH = "stdout=1&stderr=1"


@pytest.fixture(scope="module")
def api(running_box_site: BoxSite) -> EngineApi:
    return EngineApi.of(running_box_site)


@pytest.fixture(scope="module")
def ended(running_box_site: BoxSite) -> Iterator[Box]:
    script = "echo one; sleep 0.05; echo two >&2; sleep 0.05; printf thr; sleep 0.05; echo ee"
    box = running_box_site.run(f"{script}; sleep 0.05; printf end")
    running_box_site.call(
        "while Container.objects.get(pk=pk).is_running: time.sleep(0.01)", pk=box.pk
    )
    yield box
    running_box_site.remove_all()


def path(box: Box, query: str) -> str:
    return f"/v1.47/containers/{box.uid}/logs?{query}"


def test_the_last_words_are_waited_for_where_the_process_has_ended(
    running_box_site: BoxSite, api: EngineApi
) -> None:
    box = running_box_site.run("sleep 0.5; echo last")
    init = api.get(f"/containers/{box.uid}/json").json["State"]["Pid"]
    conmon = int(Path(f"/proc/{init}/stat").read_text().rpartition(")")[2].split()[1])
    ended = os.pidfd_open(init)
    os.kill(conmon, signal.SIGSTOP)
    goes_on = threading.Timer(0.3, os.kill, (conmon, signal.SIGCONT))
    try:
        assert select.select([ended], [], [], 10)[0]
        goes_on.start()
        assert frames(api.get(path(box, BOTH)).body) == [(1, b"last\n")]
    finally:
        os.close(ended)
        goes_on.join()
    running_box_site.remove_all()


def test_each_line_is_a_frame(api: EngineApi, ended: Box) -> None:
    answer = api.get(path(ended, BOTH))
    assert answer.headers["Content-Type"] == "application/vnd.docker.multiplexed-stream"
    assert frames(answer.body) == [(1, b"one\n"), (2, b"two\n"), (1, b"three\n"), (1, b"end")]
    assert frames(api.get(path(ended, "stderr=1")).body) == [(2, b"two\n")]
    assert len(frames(api.get(path(ended, "stdout=1")).body)) == 3


def test_tail_details_and_follow_of_what_has_ended(api: EngineApi, ended: Box) -> None:
    assert frames(api.get(path(ended, f"{BOTH}&tail=2")).body) == [(1, b"three\n"), (1, b"end")]
    assert api.get(path(ended, f"{BOTH}&tail=0&follow=1")).body == b""
    assert len(frames(api.get(path(ended, f"{BOTH}&tail=all&follow=1")).body)) == 4
    assert frames(api.get(path(ended, f"{BOTH}&details=1")).body)[0] == (1, b" one\n")


def test_timestamps_since_and_until(api: EngineApi, ended: Box) -> None:
    stamped = frames(api.get(path(ended, f"{BOTH}&timestamps=1")).body)
    stamps = [text.partition(b" ")[0].decode() for _, text in stamped]
    assert [text.partition(b" ")[2] for _, text in stamped][:3] == [b"one\n", b"two\n", b"three\n"]
    assert all(len(stamp) == 30 and stamp.endswith("Z") for stamp in stamps)
    assert stamps == sorted(stamps)
    seconds = int(datetime.fromisoformat(f"{stamps[1][:19]}+00:00").timestamp())
    exactly = f"{seconds}.{stamps[1][20:29]}"
    assert len(frames(api.get(path(ended, f"{BOTH}&since={exactly}")).body)) == 3
    assert len(frames(api.get(path(ended, f"{BOTH}&until={exactly}")).body)) == 2
    only = frames(api.get(path(ended, f"{BOTH}&since={exactly}&until={exactly}")).body)
    assert only == [(2, b"two\n")]
    assert frames(api.get(path(ended, f"{BOTH}&since={seconds + 3600}")).body) == []


def test_a_terminals_are_raw(running_box_site: BoxSite, api: EngineApi) -> None:
    box = running_box_site.run("echo one; echo two >&2; sleep 600", tty=True)
    api.until_logged(box.uid, b"two\r\n")
    answer = api.get(path(box, BOTH))
    assert answer.headers["Content-Type"] == "application/vnd.docker.raw-stream"
    assert answer.body == b"one\r\ntwo\r\n"


def test_a_follower_sees_lines_as_they_come_and_the_end(
    running_box_site: BoxSite, api: EngineApi
) -> None:
    box = running_box_site.run(
        "echo ready; while read x; do echo got $x; [ $x = q ] && exit; done", open_stdin=True
    )
    attached = api.hijack(f"/v1.47/containers/{box.uid}/attach?stream=1&stdin=1")
    pieces = api.stream_lines(path(box, f"{BOTH}&follow=1"))
    assert frames(next(pieces)) == [(1, b"ready\n")]
    with closing(attached):
        began = time.monotonic()
        attached.send(b"a\n")
        assert frames(next(pieces)) == [(1, b"got a\n")]
        assert time.monotonic() - began < 0.5
        attached.send(b"q\n")
        assert frames(b"".join(pieces)) == [(1, b"got q\n")]


def test_until_ends_a_follower_in_time(running_box_site: BoxSite, api: EngineApi) -> None:
    box = running_box_site.run("echo up; sleep 600")
    began = time.time()
    answer = api.get(path(box, f"{BOTH}&follow=1&until={began + 0.5:.6f}"))
    assert frames(answer.body) == [(1, b"up\n")]
    assert 0.4 < time.time() - began < 5


def test_long_lines_come_in_pieces_of_16_kib(running_box_site: BoxSite, api: EngineApi) -> None:
    box = running_box_site.run("head -c 40000 /dev/zero | tr '\\0' x; echo; echo next; sleep 600")
    api.until_logged(box.uid, b"next\n")
    data = api.get(path(box, BOTH)).body
    assert texts(data) == b"x" * 40000 + b"\nnext\n"
    assert [len(text) for _, text in frames(data)] == [16384, 16384, 7233, 5]


def test_two_hundred_thousand_lines(running_box_site: BoxSite, api: EngineApi) -> None:
    box = running_box_site.run("seq 1 200000")
    running_box_site.call(
        "while Container.objects.get(pk=pk).is_running: time.sleep(0.01)", pk=box.pk
    )
    pid = api.process()
    began = _busy(pid)
    data = api.get(path(box, BOTH)).body
    took = _busy(pid) - began
    wanted = b"".join(b"\1\0\0\0\0\0\0%c%d\n" % (len(str(n)) + 1, n) for n in range(1, 200_001))
    assert data == wanted
    assert took < 1.5, took


def test_a_thousand_followers(running_box_site: BoxSite, api: EngineApi) -> None:
    """Each gets every line; ten of them never read and cost nobody anything."""
    box = running_box_site.run(
        "echo 0; read x; i=1; while [ $i -le 1500 ]; do echo line $i of many; "
        "[ $((i % 50)) = 0 ] && sleep 0.05; i=$((i+1)); done",
        open_stdin=True,
    )
    pid = api.process()
    before = _memory(pid)
    request = f"GET {path(box, BOTH)}&follow=1 HTTP/1.1\r\nHost: docker\r\n\r\n".encode()
    connections = [dial(api.path) for _ in range(1000)]
    try:
        for connection in connections:
            connection.sendall(request)
        for connection in connections[10:]:
            assert connection.recv(4096).startswith(b"HTTP/1.1 200")
        received = dict.fromkeys(connections[10:], 0)
        reading = threading.Thread(target=_read_all, args=(received,))
        reading.start()
        with closing(
            api.hijack(f"/v1.47/containers/{box.uid}/attach?stream=1&stdin=1")
        ) as attached:
            attached.send(b"\n")
            reading.join(60)
        assert not reading.is_alive()
        assert set(received.values()) == {1500}
        assert _memory(pid) - before < 150 * 1024 * 1024
    finally:
        for connection in connections:
            connection.close()


def _read_all(received: dict[socket.socket, int]) -> None:
    """Count the lines each connection gets until its answer's end."""
    poller = select.epoll()
    by_number = {connection.fileno(): connection for connection in received}
    ends: dict[int, bytes] = {}
    for number in by_number:
        poller.register(number, select.EPOLLIN)
    while by_number:
        for number, _ in poller.poll(30):
            data = by_number[number].recv(1 << 18)
            received[by_number[number]] += data.count(b" of many\n")
            end = (ends.get(number, b"") + data)[-5:]
            ends[number] = end
            if not data or end == b"0\r\n\r\n":
                poller.unregister(number)
                del by_number[number]


def _busy(pid: int) -> float:
    """Seconds of processor it has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(pid)


def test_refusals(api: EngineApi, ended: Box) -> None:
    none = api.get(path(ended, ""))
    assert (none.status, none.message) == (
        400,
        "Bad parameters: you must choose at least one stream",
    )
    assert api.get(path(ended, f"{BOTH}&since=yesterday")).status == 400
    missing = api.get(f"/v1.47/containers/nosuch/logs?{BOTH}")
    assert (missing.status, missing.message) == (404, "No such container: nosuch")
