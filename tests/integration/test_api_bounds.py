"""What one client, or many, can make the API hold: headers, bodies, connections, silence."""

from __future__ import annotations

import asyncio
import grp
import os
import resource
import stat
from contextlib import closing
from pathlib import Path

from aiohttp import web

from engine.api.bounds import Door, raise_files
from tests.box_site import BoxSite
from tests.engine_api import EngineApi, dial


async def test_too_many_connections_are_refused_and_idle_ones_closed(tmp_path: Path) -> None:
    async def hello(request: web.Request) -> web.Response:
        return web.Response(text="hello")

    app = web.Application()
    app.router.add_get("/", hello)
    runner = web.AppRunner(app, keepalive_timeout=0.3, access_log=None)
    await runner.setup()
    assert runner.server is not None
    path = str(tmp_path / "socket")
    server = await asyncio.get_running_loop().create_unix_server(Door(runner.server, 3), path)
    clients = [await asyncio.open_unix_connection(path) for _ in range(3)]
    silent, slow, asking = clients
    slow[1].write(b"GET / HTTP/1.1\r\nHost: never ")  # finished
    asking[1].write(b"GET / HTTP/1.1\r\nHost: docker\r\n\r\n")
    assert (await asking[0].readline()).startswith(b"HTTP/1.1 200")
    refused, writer = await asyncio.open_unix_connection(path)
    clients.append((refused, writer))
    answer = await refused.read()
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert answer.endswith(b'{"message": "too many connections to the engine at once"}')
    for reader, _ in (silent, slow, asking):
        async with asyncio.timeout(5):
            await reader.read()  # to its end
    again, writer = await asyncio.open_unix_connection(path)
    clients.append((again, writer))
    writer.write(b"GET / HTTP/1.1\r\nHost: docker\r\n\r\n")
    assert (await again.readline()).startswith(b"HTTP/1.1 200")
    for _, writer in clients:
        writer.close()
        await writer.wait_closed()
    server.close()
    await runner.cleanup()


def test_files_are_enough_for_the_connections() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        most = raise_files()
        assert 3 * most < resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        assert most >= 64
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_headers_and_bodies(running_box_site: BoxSite) -> None:
    api = EngineApi.of(running_box_site)
    long = api.call("GET", "/_ping", headers={"X-Long": "x" * 100_000})
    assert long.status == 400
    assert api.call("GET", f"/containers/json?filters={'x' * 100_000}").status == 400
    huge = api.post("/v1.47/containers/nosuch/exec", b'{"Cmd": ["%b"]}' % (b"x" * 9_000_000))
    assert huge.status == 400
    assert "too large" in huge.message
    for body in (b"[]", b"{", b"\xff"):
        assert api.post("/v1.47/containers/nosuch/exec", body).status == 400
    assert api.get("/_ping").body == b"OK"


def test_a_client_that_does_not_read_its_answer_stops_nobody(running_box_site: BoxSite) -> None:
    api = EngineApi.of(running_box_site)
    box = running_box_site.run("seq 1 60000")
    running_box_site.call(
        "while Container.objects.get(pk=pk).is_running: time.sleep(0.01)", pk=box.pk
    )
    request = f"GET /containers/{box.uid}/logs?stdout=1 HTTP/1.1\r\nHost: docker\r\n\r\n".encode()
    stalled = [dial(api.path) for _ in range(12)]
    for connection in stalled:
        connection.sendall(request)
    assert api.get("/_ping").body == b"OK"
    assert len(api.get(f"/containers/{box.uid}/logs?stdout=1").body) > 700_000
    for connection in stalled:
        with closing(connection):
            data = b""
            while not data.endswith(b"0\r\n\r\n"):
                more = connection.recv(1 << 20)
                assert more
                data = data[-5:] + more
    running_box_site.remove_all()


def test_the_socket_is_roots_and_a_groups(running_box_site: BoxSite) -> None:
    found = EngineApi.of(running_box_site).path.stat()
    groups = {group.gr_name: group.gr_gid for group in grp.getgrall()}
    wanted = os.environ.get("QUAYSIDE_SOCKET_GROUP") or "docker"
    assert (found.st_uid, found.st_gid) == (0, groups.get(wanted, 0))
    assert stat.filemode(found.st_mode) == "srw-rw----"
