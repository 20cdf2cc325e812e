"""web's processes: unprivileged, one a core, restarted, bounded in memory, polite at the end."""

from __future__ import annotations

import asyncio
import os
import pwd
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import aiohttp

from tests.box_site import BoxSite
from tests.site import ROOT
from tests.sockets import signed_in


def status(pid: int, field: str) -> str:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return line.partition(":")[2].strip()
    raise AssertionError(field)


def resident(pids: list[int]) -> int:
    return sum(int(status(pid, "VmRSS").split()[0]) for pid in pids) * 1024


async def wait_until(holds: object, seconds: float = 20) -> None:
    assert callable(holds)
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


def test_processes_are_unprivileged_and_one_a_core(box_site: BoxSite) -> None:
    _, *children = box_site.site.pids("web")
    user = pwd.getpwnam("quayside")
    assert len(children) == len(os.sched_getaffinity(0))
    for pid in children:
        assert status(pid, "Uid").split() == [str(user.pw_uid)] * 4
        assert status(pid, "Gid").split() == [str(user.pw_gid)] * 4
        assert status(pid, "Groups") == ""
        assert int(status(pid, "CapEff"), 16) == 0


async def test_a_process_that_dies_is_started_again(box_site: BoxSite) -> None:
    launcher, *children = box_site.site.pids("web")
    os.kill(children[0], signal.SIGKILL)
    await wait_until(
        lambda: (
            (now := set(box_site.site.pids("web"))) > {launcher, *children[1:]}
            and children[0] not in now
        )
    )
    for _ in range(4):  # whoever takes the connection
        async with aiohttp.ClientSession() as http, http.get(box_site.url + "/healthz") as answer:
            assert answer.status == 200


async def test_the_end_of_web_is_told_and_its_socket_goes_on(box_site: BoxSite) -> None:
    box = box_site.run("sleep 600")
    async with signed_in(box_site.url) as person:
        async with person.socket(f"/ws/logs/{box.uid}/") as socket:
            await socket.until(lambda s: s.of("hello"))
            box_site.site.supervisorctl("stop", "web")
            assert await socket.closed() == 1012
            assert socket.of("end") == {
                "t": "end",
                "code": 1012,
                "reason": "restart",
                "again": True,
            }
        box_site.site.supervisorctl("start", "web")

        def answers() -> bool:
            with socket_to(box_site) as probe:
                return probe is not None

        await wait_until(answers)
        async with person.socket(f"/ws/logs/{box.uid}/") as socket:
            await socket.until(lambda s: s.of("hello"))


class socket_to:
    """A plain connection to the site; None when nobody listens."""

    def __init__(self, site: BoxSite, receive: int | None = None) -> None:
        self._site, self._receive = site, receive
        self._socket = socket.socket()

    def __enter__(self) -> socket.socket | None:
        if self._receive is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive)
        try:
            self._socket.connect(("127.0.0.1", self._site.site.port))
        except ConnectionRefusedError:
            return None
        return self._socket

    def __exit__(self, *_: object) -> None:
        self._socket.close()


async def test_a_stalled_download_costs_a_buffer(box_site: BoxSite) -> None:
    box = box_site.run("head -c 40000000 /dev/zero | tr '\\0' x; echo; echo end; sleep 600")
    async with signed_in(box_site.url) as person:
        async with person.socket(f"/ws/logs/{box.uid}/?from=-1") as watcher:
            await watcher.until(lambda s: b"end\n" in s.bytes or s.of("hello"))
            await asyncio.sleep(1)
        _, *children = box_site.site.pids("web")
        before = resident(children)
        request = (
            f"GET /t/team/containers/{box.name}/logs/download/?times=0 HTTP/1.1\r\n"
            f"Host: 127.0.0.1:{box_site.site.port}\r\nConnection: close\r\n"
            f"Cookie: {'; '.join(f'{c.key}={c.value}' for c in person.http.cookie_jar)}\r\n\r\n"
        )
        with socket_to(box_site, receive=4096) as reader:
            assert reader is not None
            reader.sendall(request.encode())
            assert reader.recv(100).startswith(b"HTTP/1.1 200")
            await asyncio.sleep(2)
            assert resident(children) - before < 16 * 1024 * 1024
            size = 0
            reader.settimeout(20)
            while data := await asyncio.to_thread(reader.recv, 1 << 20):
                size += len(data)
        assert size > 40_000_000


async def test_a_body_over_the_limit_is_refused_unread(box_site: BoxSite) -> None:
    for head in (b"Content-Length: 99000000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n"):
        with socket_to(box_site) as client:
            assert client is not None
            client.sendall(b"POST /sign-in/ HTTP/1.1\r\nHost: 127.0.0.1\r\n" + head)
            client.settimeout(10)
            answer = b""
            try:
                if b"chunked" in head:
                    for _ in range(11):
                        client.sendall(b"100000\r\n" + b"x" * 0x100000 + b"\r\n")
                answer = client.recv(100)
            except ConnectionError:
                continue  # cut off in the middle: as good
            assert answer.startswith(b"HTTP/1.1 413")


def test_a_clone_below_a_closed_folder_is_reached_and_nothing_else_there(tmp_path: Path) -> None:
    """As a clone in /root: web's user sees the tree it needs, read-only, and not its neighbours."""
    closed = tmp_path / "closed"
    (closed / "deep" / "tree").mkdir(parents=True)
    (closed / "deep" / "tree" / "file").write_text("reached\n")
    (closed / "home").mkdir()
    (closed / "secret").write_text("secret\n")
    closed.chmod(0o700)
    (closed / "home").chmod(0o777)
    script = f"""
import os, pwd, sys
from pathlib import Path
from console import mounts
user = pwd.getpwnam("quayside")
closed = Path({str(closed)!r})
trees = [mounts.Tree(closed / "deep/tree"), mounts.Tree(closed / "home", writable=True)]
assert mounts.enter(trees, user)
os.setgroups([]); os.setgid(user.pw_gid); os.setuid(user.pw_uid)
assert (closed / "deep/tree/file").read_text() == "reached\\n"
assert not (closed / "secret").exists()
assert sorted(os.listdir(closed)) == ["deep", "home"]
(closed / "home/written").write_text("x")
for path in (closed / "deep/tree/new", closed / "new"):
    try:
        path.write_text("x")
    except OSError:
        continue
    sys.exit(f"{{path}} could be written")
"""
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, env=os.environ)
    # Outside nothing has changed, and nothing stays mounted.
    assert (closed / "secret").read_text() == "secret\n"
    assert (closed / "home" / "written").exists()
    assert str(closed) not in Path("/proc/self/mountinfo").read_text()


def test_a_port_that_is_taken_says_so() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "console.serve", "--port", str(port)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            env=os.environ,
        )
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr
    assert "QUAYSIDE_PORT" in done.stderr
