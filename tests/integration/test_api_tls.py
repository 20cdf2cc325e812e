"""The Docker API over TCP, clients that go while nothing is said (over either socket), and what it
does while the queue is away: a site of its own for all."""

from __future__ import annotations

import grp
import hashlib
import json
import os
import socket
import ssl
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.box_site import BoxSite
from tests.engine_api import SECONDS, EngineApi, dial
from tests.tls_site import SOCKET_GROUP, Far, far, make_certificate

__all__ = ["far"]


def test_the_cli_gets_in_with_an_administrators_token(far: Far) -> None:
    token = far.site.call(
        """
        from engine.services.tokens import token_create
        result = token_create(user.pk, "test")[1]
        """
    )
    for wrong in ("", "qst_wrong"):
        refused = far.docker("ps", token=wrong)
        assert refused.returncode == 1
        assert "no valid token" in refused.stderr
    ran = far.docker("run", "--rm", "box", "echo", "over TLS", token=token)
    assert (ran.returncode, ran.stdout) == (0, "over TLS\n"), ran.stderr
    # The client's half-close of TLS ends the input, and nothing else.
    body = "".join(f"line {n}\n" for n in range(20_000))
    counted = far.docker("run", "--rm", "-i", "box", "sha256sum", token=token, text=body)
    assert counted.stdout.split()[0] == hashlib.sha256(body.encode()).hexdigest(), counted.stderr
    flood = far.docker("run", "--rm", "box", "seq", "300000", token=token)
    assert flood.stdout == "".join(f"{n}\n" for n in range(1, 300_001))
    actors = far.site.call(
        'result = list(Operation.objects.values_list("actor", flat=True).distinct())'
    )
    assert actors == ["user:1"]


def test_a_client_that_does_not_know_the_certificate_sends_nothing(far: Far) -> None:
    (far.folder / "other").mkdir()
    other = make_certificate(far.folder / "other")[0]
    refused = Far(far.site, far.address, other.parent).docker("ps", token="x")
    assert refused.returncode == 1
    assert "certificate" in refused.stderr


def test_the_socket_is_the_group_s_that_was_set(far: Far) -> None:
    """And nobody else's: who is not root asks by that group."""
    path = EngineApi.of(far.site).path
    wanted = grp.getgrnam(SOCKET_GROUP).gr_gid
    found = path.stat()
    assert (found.st_uid, found.st_gid) == (0, wanted)
    assert stat.filemode(found.st_mode) == "srw-rw----"

    def asks(group: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                *("setpriv", "--reuid=65534", f"--regid={group}", "--clear-groups"),
                *("docker", "-H", f"unix://{path}", "version", "-f", "{{.Server.APIVersion}}"),
            ],
            env={"PATH": os.environ["PATH"], "DOCKER_CONFIG": "/nonexistent"},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    assert asks(wanted).stdout.startswith("1."), asks(wanted).stderr
    refused = asks(65534)
    assert refused.returncode == 1
    assert "permission denied" in refused.stderr


# Each is served for as long as the container runs, and the container says nothing by itself.
SERVED = {
    "attach": ("POST", "/containers/{id}/attach?stream=1&stdout=1&stderr=1"),
    "attach with stdin": ("POST", "/containers/{id}/attach?stream=1&stdin=1&stdout=1"),
    "exec": ("POST", "/exec/{exec}/start"),
    "logs": ("GET", "/containers/{id}/logs?follow=1&stdout=1"),
    "events": ("GET", "/events"),
    "stats": ("GET", "/containers/{id}/stats"),
    "wait": ("POST", "/containers/{id}/wait"),
}


class Near:
    """A client on the unix socket."""

    def __init__(self, far: Far) -> None:
        self.socket = dial(far.site.site.home / "run/docker.sock")

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self) -> bytes:
        return self.socket.recv(65536)

    def half_close(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def until(self, wanted: bytes) -> bytes:
        found = b""
        while wanted not in found:
            more = self.receive()
            assert more, f"ended without {wanted!r}: {found!r}"
            found += more
        return found


class OverTls(Near):
    """One over TLS, whose half-close is TLS's alone, as Go's CloseWrite."""

    def __init__(self, far: Far) -> None:
        host, port = far.address.split(":")
        self.socket = socket.create_connection((host, int(port)), SECONDS)
        context = ssl.create_default_context(cafile=str(far.folder / "ca.pem"))
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_hostname=host)
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._pass()
                self._in.write(self.socket.recv(65536))
                continue
            break
        self._pass()

    def _pass(self) -> None:
        self.socket.sendall(self._out.read())

    def send(self, data: bytes) -> None:
        self._tls.write(data)
        self._pass()

    def receive(self) -> bytes:
        while True:
            try:
                return self._tls.read(65536)
            except ssl.SSLWantReadError:
                more = self.socket.recv(65536)
                if not more:
                    return b""
                self._in.write(more)

    def half_close(self) -> None:
        with pytest.raises(ssl.SSLWantReadError):
            self._tls.unwrap()
        self._pass()


@pytest.fixture(scope="module")
def site(far: Far) -> Iterator[BoxSite]:
    yield far.site
    far.site.remove_all()


@pytest.fixture(scope="module")
def silent(site: BoxSite) -> str:
    """The id of a container that says `said LINE` for each line in its /say."""
    script = "mkfifo /say /say2; while :; do read line </say; echo said $line; done"
    uid = site.run(script, open_stdin=True).uid
    # What the API opens once, for its first event, it keeps.
    assert EngineApi.of(site).run_exec(uid, "true")[0] == 0
    return uid


@pytest.fixture(scope="module")
def token(site: BoxSite) -> str:
    return str(
        site.call(
            """
            from engine.services.tokens import token_create
            result = token_create(user.pk, "gone")[1]
            """
        )
    )


@pytest.mark.parametrize("served", SERVED)
@pytest.mark.parametrize("kind", [Near, OverTls])
def test_it_is_noticed_at_once_and_not_with_the_next_write(
    far: Far, silent: str, token: str, kind: type[Near], served: str
) -> None:
    """And who has only sent all its input is not gone."""
    api = EngineApi.of(far.site)
    pid = api.process()
    method, path = SERVED[served]
    exec = api.exec(silent, "sh", "-c", "read line </say2; echo said $line; sleep 1000")
    body = json.dumps({"Detach": False}).encode() if served == "exec" else b""
    before = held(pid)
    client = kind(far)
    client.send(
        f"{method} /v1.47{path.format(id=silent, exec=exec)} HTTP/1.1\r\nHost: docker\r\n"
        f"X-Quayside-Token: {token}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n".encode()
        + body
    )
    head = client.until(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), head
    its = held(pid) - before
    assert its, "nothing is held for it"
    if served in ("attach", "exec"):
        client.half_close()
        fifo = "/say2" if served == "exec" else "/say"
        assert api.run_exec(silent, "sh", "-c", f"echo {served} >{fifo}")[0] == 0
        # It is still served; what was only of its beginning is gone by now.
        client.until(f"said {served}".encode())
        its &= held(pid)
        assert its, "nothing is held for it"
    client.socket.close()
    began = time.monotonic()
    while (left := its & held(pid)) and time.monotonic() < began + SECONDS:
        time.sleep(0.01)
    assert not left
    assert time.monotonic() - began < 5


def held(pid: int) -> set[str]:
    """Sockets and logs that a process has open."""
    found = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(entry.readlink())
        except FileNotFoundError:
            continue
        if target.startswith("socket:") or "/log" in target:
            found.add(target)
    return found


def test_while_the_queue_is_away(far: Far) -> None:
    """Reads and stops go on; a start waits, and its client is told."""
    api = EngineApi.of(far.site)
    running = far.site.run("trap 'exit 0' TERM; while :; do sleep 0.1; done")
    waits = far.site.command("sleep", "100", start=False)
    others = api.get("/info").json["ContainersRunning"] - 1
    far.site.site.supervisorctl("stop", "redis")
    try:
        began = time.monotonic()
        answer = api.post(f"/containers/{waits.uid}/start")
        assert answer.status == 503
        assert answer.message.endswith(": the queue is away; it starts when the queue is back")
        assert time.monotonic() - began < 5
        assert api.get("/containers/json?all=1").status == 200
        assert api.post(f"/containers/{running.uid}/stop").status == 204
        assert api.post(f"/containers/{running.uid}/wait").json == {"StatusCode": 0}
        assert api.get("/info").json["ContainersRunning"] == others
    finally:
        far.site.site.supervisorctl("start", "redis")
    deadline = time.monotonic() + 20
    while not api.get(f"/containers/{waits.uid}/json").json["State"]["Running"]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    far.site.remove_all()
