"""docker cp and export over the Docker API: containers in every state, links, volumes, refusals."""

from __future__ import annotations

import base64
import http.client
import io
import json
import os
import socket
import stat
import subprocess
import tarfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.box_site import Box, BoxSite
from tests.engine_api import Answer, EngineApi, dial

SCRIPT = (
    "mkdir -p /data/deep; echo text > /data/deep/file; ln -s /data/deep /link; echo made; sleep 600"
)


@pytest.fixture(scope="module")
def api(running_box_site: BoxSite) -> EngineApi:
    return EngineApi.of(running_box_site)


@pytest.fixture(scope="module")
def box(running_box_site: BoxSite, api: EngineApi) -> Iterator[Box]:
    """It runs."""
    made = running_box_site.run(SCRIPT)
    api.until_logged(made.uid, b"made\n")
    yield made
    running_box_site.remove_all()


@pytest.fixture(scope="module")
def new(running_box_site: BoxSite) -> Box:
    """Rows alone: it was never started, nor is there anything of it on disk."""
    made = running_box_site.call(
        """
        made = container_new(namespace, ContainerRequest(image="box", command=("true",)), "user:1")
        result = {"uid": made.uid, "name": made.name, "pk": made.pk}
        """
    )
    return Box(**made)


def at(box: Box, path: str, **more: str) -> str:
    query = "".join(f"&{key}={value}" for key, value in more.items())
    return f"/v1.47/containers/{box.name}/archive?path={quote(path)}{query}"


def stat_of(answer: Answer) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        base64.b64decode(answer.headers["X-Docker-Container-Path-Stat"])
    )
    return found


def tar(*members: tarfile.TarInfo | tuple[str, bytes], compression: str = "") -> bytes:
    """Members as they are, or (name, content)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=f"w:{compression}") as made:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                made.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size, info.mode = len(member[1]), 0o640
                made.addfile(info, io.BytesIO(member[1]))
    return out.getvalue()


def special(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, 0o755
    return info


def names(data: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(data)) as found:
        return found.getnames()


def put(api: EngineApi, box: Box, path: str, data: bytes, **more: str) -> Answer:
    return api.call("PUT", at(box, path, **more), data)


def test_stat_as_go_reads_it(api: EngineApi, box: Box) -> None:
    found = stat_of(api.call("HEAD", at(box, "/data/deep/file")))
    assert (found["name"], found["size"], found["linkTarget"]) == ("file", 5, "")
    assert found["mode"] == 0o644
    folder = stat_of(api.call("HEAD", at(box, "data/")))
    assert (folder["name"], folder["mode"]) == ("data", 1 << 31 | 0o755)
    sticky = stat_of(api.call("HEAD", at(box, "/tmp")))
    assert sticky["mode"] == 1 << 31 | 1 << 20 | 0o777
    link = stat_of(api.call("HEAD", at(box, "/link")))
    assert (link["name"], link["linkTarget"]) == ("link", "/data/deep")
    assert link["mode"] == 1 << 27 | 0o777
    assert stat_of(api.call("HEAD", at(box, "/")))["name"] == "/"
    assert api.call("HEAD", at(box, "/nosuch")).status == 404


def test_a_file_a_folder_and_what_a_link_leads_to(api: EngineApi, box: Box) -> None:
    answer = api.get(at(box, "/data/deep/file"))
    assert answer.headers["Content-Type"] == "application/x-tar"
    with tarfile.open(fileobj=io.BytesIO(answer.body)) as found:
        (member,) = found.getmembers()
        content = found.extractfile(member)
        assert content is not None
        assert (member.name, member.mode, content.read()) == ("file", 0o644, b"text\n")
    assert names(api.get(at(box, "/data")).body) == ["data", "data/deep", "data/deep/file"]
    assert names(api.get(at(box, "/data/.")).body) == [".", "./deep", "./deep/file"]
    assert names(api.get(at(box, "/link")).body) == ["link"]
    assert names(api.get(at(box, "/link/")).body) == ["link", "link/file"]
    assert names(api.get(at(box, "/link/file")).body) == ["file"]
    missing = api.get(at(box, "/data/nosuch"))
    assert missing.status == 404
    assert missing.message == f"Could not find the file /data/nosuch in container {box.name}"


@pytest.mark.parametrize("compression", ["", "gz", "bz2", "xz"])
def test_in_and_out_again_running(api: EngineApi, box: Box, compression: str) -> None:
    text = os.urandom(300_000)
    data = tar(special("new", tarfile.DIRTYPE), ("new/file", text), compression=compression)
    assert put(api, box, "/tmp", data).status == 200
    with tarfile.open(fileobj=io.BytesIO(api.get(at(box, "/tmp/new/file")).body)) as found:
        content = found.extractfile("file")
        assert content is not None
        assert content.read() == text
    code, out = api.run_exec(box.uid, "stat", "-c", "%a %u", "/tmp/new/file")
    assert (code, out[8:]) == (0, b"640 0\n")


def test_of_one_that_never_ran_and_of_one_that_has_ended(
    running_box_site: BoxSite, api: EngineApi, new: Box
) -> None:
    assert put(api, new, "/tmp", tar(("hello", b"hi"))).status == 200
    assert names(api.get(at(new, "/tmp")).body) == ["tmp", "tmp/hello"]
    home = running_box_site.site.home
    assert not os.path.ismount(home / f"containers/{new.uid}/rootfs")
    ended = running_box_site.run("echo 1 > /made")
    running_box_site.call(
        "while Container.objects.get(pk=pk).is_running: time.sleep(0.01)", pk=ended.pk
    )
    assert names(api.get(at(ended, "/made")).body) == ["made"]
    # It starts again with what was put there meanwhile.
    assert put(api, ended, "/tmp", tar(("seen", b"by it"))).status == 200
    running_box_site.operate(ended, "start")


def test_volumes_are_where_they_are_inside(running_box_site: BoxSite, api: EngineApi) -> None:
    made = running_box_site.call(
        """
        from engine.containers.options import HostOptions, Mount
        from engine.services.volumes import volume_create
        mounts = (
            Mount(type="volume", destination="/vol", name="cp-rw"),
            Mount(type="volume", destination="/vol/ro", name="cp-ro", read_only=True),
        )
        made, operation = container_create(
            namespace,
            ContainerRequest(
                image="box",
                command=("sh", "-c", "ls /vol > /tmp/ls; sleep 600"),
                host=HostOptions(mounts=mounts),
            ),
            "user:1",
        )
        done(operation)
        result = {"uid": made.uid, "name": made.name, "pk": made.pk}
        """
    )
    box = Box(**made)
    before = Path("/proc/mounts").read_text().count("\n")
    assert put(api, box, "/vol", tar(("early", b"before the start"))).status == 200
    refused = put(api, box, "/vol/ro", tar(("x", b"")))
    assert (refused.status, refused.message) == (403, "mounted volume is marked read-only")
    assert Path("/proc/mounts").read_text().count("\n") == before
    running_box_site.operate(box, "start")
    assert names(api.get(at(box, "/vol")).body) == ["vol", "vol/early", "vol/ro"]
    assert put(api, box, "/vol", tar(("late", b"while it runs"))).status == 200
    assert api.run_exec(box.uid, "cat", "/vol/late")[1][8:] == b"while it runs"
    exported = names(api.get(f"/v1.47/containers/{box.uid}/export").body)
    assert "vol" in exported
    assert "vol/early" not in exported


def test_links_never_lead_to_the_host(
    running_box_site: BoxSite, api: EngineApi, box: Box, tmp_path: Path
) -> None:
    """Security case 11: up, absolute, by links that were there and by links that came along."""
    secret = tmp_path / "secret"
    secret.write_text("the host's")
    api.run_exec(box.uid, "sh", "-c", f"ln -s {tmp_path} /out; ln -s ../../../../{tmp_path} /up")
    for path in (f"/out/{secret.name}", f"/up/{secret.name}", f"../../../..{secret}", "/out/."):
        assert api.get(at(box, path)).status == 404
        assert api.call("HEAD", at(box, path)).status == 404
    assert put(api, box, "/out", tar(("planted", b"x"))).status == 404
    for archive in (
        tar(special("evil", tarfile.SYMTYPE, str(tmp_path)), ("evil/planted", b"x")),
        tar(
            special("evil", tarfile.SYMTYPE, "../../../.." + str(tmp_path)), ("evil/planted", b"x")
        ),
    ):
        put(api, box, "/tmp", archive)
    for archive in (
        tar(("../../planted", b"x")),
        tar(special("hard", tarfile.LNKTYPE, str(secret))),
        tar(special("node", tarfile.CHRTYPE)),
    ):
        assert put(api, box, "/tmp", archive).status == 400
    assert [entry.name for entry in tmp_path.iterdir()] == ["secret"]
    # Absolute names lie below the folder they are put into.
    assert put(api, box, "/tmp", tar(("/etc/passwd", b"mine"))).status == 200
    assert names(api.get(at(box, "/tmp/etc/passwd")).body) == ["passwd"]
    assert api.run_exec(box.uid, "cat", "/etc/passwd")[1][8:].startswith(b"root:")


def test_folders_and_files_do_not_take_each_others_place(api: EngineApi, box: Box) -> None:
    put(api, box, "/tmp", tar(special("kept", tarfile.DIRTYPE), ("plain", b"1")))
    keep = {"noOverwriteDirNonDir": "true"}
    refused = put(api, box, "/tmp", tar(("kept", b"a file")), **keep)
    assert refused.status == 400
    assert 'cannot overwrite directory "/tmp/kept" with non-directory' in refused.message
    other = put(api, box, "/tmp", tar(special("plain", tarfile.DIRTYPE)), **keep)
    assert 'cannot overwrite non-directory "/tmp/plain" with directory' in other.message
    assert put(api, box, "/tmp", tar(("kept", b"a file"))).status == 200
    into = put(api, box, "/etc/passwd", tar(("x", b"")))
    assert (into.status, into.message) == (400, "extraction point is not a directory")
    assert put(api, box, "/nosuch", tar(("x", b""))).status == 404


def test_a_user_gets_what_is_copied_for_it(running_box_site: BoxSite, api: EngineApi) -> None:
    box = running_box_site.run("sleep 600", user="app")
    assert put(api, box, "/tmp", tar(("mine", b"")), copyUIDGID="true").status == 200
    assert put(api, box, "/tmp", tar(("roots", b""))).status == 200
    code, out = api.run_exec(box.uid, "stat", "-c", "%u:%g", "/tmp/mine", "/tmp/roots")
    assert (code, out[8:]) == (0, b"1000:1000\n0:0\n")


def test_a_read_only_root_is_not_written(running_box_site: BoxSite, api: EngineApi) -> None:
    made = running_box_site.call(
        """
        from engine.containers.options import HostOptions
        made, operation = container_run(
            namespace,
            ContainerRequest(
                image="box", command=("sleep", "600"), host=HostOptions(read_only=True)
            ),
            "user:1",
        )
        done(operation)
        result = {"uid": made.uid, "name": made.name, "pk": made.pk}
        """
    )
    refused = put(api, Box(**made), "/tmp", tar(("x", b"")))
    assert (refused.status, refused.message) == (403, "container rootfs is marked read-only")


def test_export_is_the_whole_root(api: EngineApi, box: Box) -> None:
    answer = api.get(f"/v1.47/containers/{box.uid}/export")
    assert answer.headers["Content-Type"] == "application/octet-stream"
    with tarfile.open(fileobj=io.BytesIO(answer.body)) as found:
        members = {member.name: member for member in found.getmembers()}
    assert members["bin/busybox"].isfile()
    assert members["data/deep/file"].size == 5
    assert members["link"].linkname == "/data/deep"
    assert stat.S_IMODE(members["tmp"].mode) == 0o1777


def test_a_client_that_goes_lets_the_container_go(
    running_box_site: BoxSite, api: EngineApi
) -> None:
    box = running_box_site.run("head -c 50000000 /dev/zero > /big")
    running_box_site.call(
        "while Container.objects.get(pk=pk).is_running: time.sleep(0.01)", pk=box.pk
    )
    with closing(dial(api.path)) as connection:
        connection.sendall(f"GET {at(box, '/big')} HTTP/1.1\r\nHost: docker\r\n\r\n".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
    began = time.monotonic()
    running_box_site.operate(box, "start")
    assert time.monotonic() - began < 10


def test_the_cli_copies_both_ways(api: EngineApi, box: Box, tmp_path: Path) -> None:
    def docker(*words: str) -> str:
        done = subprocess.run(
            ["docker", "cp", *words],
            env={**os.environ, "DOCKER_HOST": f"unix://{api.path}", "DOCKER_CONFIG": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stderr if done.returncode else ""

    (tmp_path / "folder/sub").mkdir(parents=True)
    (tmp_path / "folder/sub/file").write_text("there and back")
    assert docker(str(tmp_path / "folder"), f"{box.name}:/tmp/copied") == ""
    assert docker(f"{box.name}:/tmp/copied/sub", str(tmp_path / "back")) == ""
    assert (tmp_path / "back/file").read_text() == "there and back"
    assert docker(f"{box.name}:/nosuch", str(tmp_path)) == (
        f"Error response from daemon: Could not find the file /nosuch in container {box.name}\n"
    )


def test_events_and_refusals(running_box_site: BoxSite, api: EngineApi, box: Box) -> None:
    api.get(at(box, "/data"))
    put(api, box, "/tmp", tar(("x", b"")))
    actions = running_box_site.call(
        """
        events = Event.objects.filter(actor_id=uid).order_by("pk")
        deadline = time.monotonic() + 10
        while events.last().action != "extract-to-dir" and time.monotonic() < deadline:
            time.sleep(0.02)
        result = list(events.values_list("action", flat=True))
        """,
        uid=box.uid,
    )
    assert actions[-2:] == ["archive-path", "extract-to-dir"]
    assert api.get(f"/v1.47/containers/{box.uid}/archive").status == 400
    assert api.get("/v1.47/containers/nosuch/archive?path=/").status == 404
    assert put(api, box, "/tmp", b"no tar at all" * 100).status == 400
    with closing(http.client.HTTPConnection("localhost")) as connection:
        connection.sock = dial(api.path)
        assert isinstance(connection.sock, socket.socket)
        # A body that ends too early is no archive either.
        connection.putrequest("PUT", at(box, "/tmp"))
        connection.putheader("Transfer-Encoding", "chunked")
        connection.endheaders()
        part = tar(("cut", b"y" * 5000))[:1500]
        connection.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(part), part))
        assert connection.getresponse().status == 400
