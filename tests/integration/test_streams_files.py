"""A container's files through web and engined: looked at, downloaded, put there, changed."""

from __future__ import annotations

import asyncio
import io
import os
import re
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.box_site import Box, BoxSite
from tests.sockets import Person, signed_in

SCRIPT = """
mkdir -p /data/deep /many; echo text > /data/file; echo more > /data/deep/more
ln -s /data/file /data/link; ln -s ../../../../../../etc/shadow /data/out; mkfifo /data/pipe
printf 'a\\0b' > /data/binary; rm /etc/group
i=0; while [ $i -lt 600 ]; do : > /many/$i; i=$((i+1)); done
dd if=/dev/zero of=/data/huge bs=1M count=300 2>/dev/null; echo ready; exec sleep 600
"""


@pytest.fixture(scope="module")
def box(running_box_site: BoxSite) -> Iterator[Box]:
    made = running_box_site.run(SCRIPT)
    log = running_box_site.site.home / "containers" / made.uid / "log"
    deadline = time.monotonic() + 30
    while not any(b"ready" in path.read_bytes() for path in log.glob("*") if path.is_file()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    yield made
    running_box_site.remove_all()


def base(box: Box) -> str:
    return f"/t/team/containers/{box.name}/"


async def page(person: Person, address: str, status: int = 200) -> str:
    async with person.http.get(address) as answer:
        text = await answer.text()
        assert answer.status == status, text
        return text


def names(text: str) -> list[str]:
    return re.findall(r'class="name"[^>]*>([^<]*)<', text)


def events(site: BoxSite, box: Box, last: str = "") -> list[str]:
    """In their order. What was sent is written down afterwards: `last` is waited for."""
    found: list[str] = site.call(
        """
        actions = Event.objects.filter(actor_id=uid).order_by("pk").values_list("action", flat=True)
        deadline = time.monotonic() + 10
        while last and actions.last() != last and time.monotonic() < deadline:
            time.sleep(0.02)
        result = list(actions)
        """,
        uid=box.uid,
        last=last,
    )
    return found


def tar(**files: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as made:
        for name, content in files.items():
            member = tarfile.TarInfo(name.replace("__", "/"))
            member.size, member.mode = len(content), 0o755
            made.addfile(member, io.BytesIO(content.encode()))
    return out.getvalue()


async def uploaded(person: Person, data: bytes) -> str:
    headers = {"X-CSRFToken": person.cookie("csrf")}
    form = {"filename": "files.tar", "size": str(len(data))}
    async with person.http.post("/t/team/uploads/files/", data=form, headers=headers) as answer:
        made = await answer.json()
    more = {**headers, "Upload-Offset": "0"}
    async with person.http.put(made["url"], data=data, headers=more) as answer:
        assert answer.status == 200
    async with person.http.post(f"{made['url']}finish/", headers=headers) as answer:
        assert answer.status == 200
    return str(made["id"])


async def put(person: Person, box: Box, path: str, upload: str) -> tuple[int, dict[str, Any]]:
    headers = {"X-CSRFToken": person.cookie("csrf")}
    address = f"{base(box)}files/put/?path={path}"
    async with person.http.post(address, data={"upload": upload}, headers=headers) as answer:
        return answer.status, await answer.json()


async def test_a_folder_a_text_and_what_is_no_text(box_site_kept: BoxSite, box: Box) -> None:
    async with signed_in(box_site_kept.url) as person:
        text = await page(person, f"{base(box)}files/?path=/data")
        shown = names(text)
        assert shown == ["..", "deep", "binary", "file", "huge", "link", "out", "pipe"]
        assert "→ /data/file" in text and "-rw-r--r--" in text and "root:0" in text
        # A link out of the root ends inside it.
        assert "leads nowhere" in text
        assert "text\n</pre>" in await page(person, f"{base(box)}files/?path=/data/link")
        assert "<pre" not in await page(person, f"{base(box)}files/?path=/data/binary")
        assert "<pre" not in await page(person, f"{base(box)}files/?path=/data/pipe")
        assert "/nope" in await page(person, f"{base(box)}files/?path=/nope", 404)
        many = await page(person, f"{base(box)}files/?path=/many")
        assert len(names(many)) == 201 and "1–200 / 600" in many
        assert 'href="?path=/many&amp;page=2"' in many
        last = await page(person, f"{base(box)}files/?path=/many&page=99")
        assert names(last)[-1] == "99" and "401–600 / 600" in last
        assert names(await page(person, f"{base(box)}files/?path=/many&q=599")) == ["599"]


async def test_downloads_and_their_events(box_site_kept: BoxSite, box: Box) -> None:
    before = len(events(box_site_kept, box))
    async with signed_in(box_site_kept.url) as person:
        async with person.http.get(f"{base(box)}files/get/?path=/data/link") as answer:
            assert answer.headers["Content-Length"] == "5"
            assert await answer.read() == b"text\n"
        async with person.http.get(f"{base(box)}files/get/?path=/data/deep") as answer:
            assert answer.headers["Content-Disposition"] == 'attachment; filename="deep.tar"'
            with tarfile.open(fileobj=io.BytesIO(await answer.read())) as found:
                assert found.getnames() == ["deep", "deep/more"]
        for path, status in (("/data/pipe", 404), ("/nope", 404)):
            async with person.http.get(f"{base(box)}files/get/?path={path}") as answer:
                assert answer.status == status
        async with person.http.get(f"{base(box)}export/") as answer:
            whole = await answer.read()
        with tarfile.open(fileobj=io.BytesIO(whole)) as packed:
            assert {"data/file", "bin/busybox"} <= set(packed.getnames())
    found = events(box_site_kept, box, last="export")
    assert sorted(found[before:]) == ["archive-path", "archive-path", "export"]


async def test_a_stopped_download_ends_its_reader_and_is_held_nowhere(
    box_site_kept: BoxSite, box: Box
) -> None:
    """300 MB at nobody's pace: web and engined stay small, and the file is let go of."""
    engined = box_site_kept.site.pids("engined")
    web = box_site_kept.site.pids("web")
    async with signed_in(box_site_kept.url) as person:
        answer = await person.http.get(f"{base(box)}files/get/?path=/data/huge")
        assert await answer.content.readexactly(1000) == bytes(1000)
        before = {pid: resident(pid) for pid in (*engined, *web)}
        await until(lambda: reads(engined))
        await asyncio.sleep(0.3)
        for pid, size in before.items():
            assert resident(pid) - size < 30 << 20
        answer.close()
        await until(lambda: not reads(engined))


async def test_what_is_put_is_there_and_nothing_leaves_the_root(
    box_site_kept: BoxSite, box: Box
) -> None:
    async with signed_in(box_site_kept.url) as person:
        await person.http.get(f"{base(box)}files/")
        upload = await uploaded(person, tar(new="new\n", sub__inner="inner\n"))
        assert await put(person, box, "/data/deep", upload) == (200, {"done": True})
        assert "inner" in await page(person, f"{base(box)}files/?path=/data/deep/sub/inner")
        found = events(box_site_kept, box, last="archive-path")
        assert found[-2:] == ["extract-to-dir", "archive-path"]
        assert not (box_site_kept.site.home / "uploads" / upload).exists()
        # Used up.
        assert (await put(person, box, "/data/deep", upload))[0] == 404
        for path, words in (("/data/file", "no folder"), ("/nope", "no “/nope”")):
            upload = await uploaded(person, tar(new="new\n"))
            status, answer = await put(person, box, path, upload)
            assert status in (400, 404) and words in answer["error"], answer
        # The folder of a link that leads out is one inside.
        marker = f"marker-{os.getpid()}"
        upload = await uploaded(person, tar(**{f"..__..__..__..__tmp__{marker}": "x"}))
        assert (await put(person, box, "/data/deep", upload))[0] in (200, 400)
        assert not Path(f"/tmp/{marker}").exists()
        changes = await page(person, f"{base(box)}changes/?q=deep")
        assert {"deep", "new", "inner"} <= set(names(changes))
        deleted = await page(person, f"{base(box)}changes/?state=deleted")
        assert names(deleted) == ["group"]


async def test_a_stopped_containers_files(box_site_kept: BoxSite) -> None:
    made = box_site_kept.run("echo kept > /kept")
    async with signed_in(box_site_kept.url) as person:
        async with asyncio.timeout(10):
            while "kept" not in names(await page(person, f"{base(made)}files/")):
                await asyncio.sleep(0.05)
        upload = await uploaded(person, tar(late="late\n"))
        assert (await put(person, made, "/", upload))[0] == 200
        assert "late\n" in await page(person, f"{base(made)}files/?path=/late")
    box_site_kept.operate(made, "remove")


@pytest.fixture
def box_site_kept(running_box_site: BoxSite) -> BoxSite:
    """With the module's container left alone between tests."""
    return running_box_site


def reads(pids: list[int]) -> bool:
    """Whether one of them has the huge file open."""
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            try:
                if link.readlink().name == "huge":
                    return True
            except FileNotFoundError:
                continue
    return False


def resident(pid: int) -> int:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) * 1024 if found else 0


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.02)
