"""Security cases 11 and 12 in builds: links of a context, a stage or an image lead nowhere."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.build.archive import unpack_archive
from engine.errors import ContextError, QuaysideError
from tests.builder import Builder, builder, make_base

__all__ = ["builder"]


@pytest.fixture
def secret(tmp_path: Path) -> Iterator[Path]:
    """A file of the host beside the context."""
    path = tmp_path / "secret"
    path.mkdir()
    (path / "key").write_text("host secret")
    yield path
    assert (path / "key").read_text() == "host secret"
    assert [child.name for child in path.iterdir()] == ["key"]


@pytest.mark.parametrize("source", ["link", "link/key", "up", "up/key", "key", "dir/link/key"])
def test_a_link_out_of_the_context_finds_nothing(
    builder: Builder, secret: Path, source: str
) -> None:
    (builder.context / "link").symlink_to(secret)
    (builder.context / "up").symlink_to("../../secret")
    (builder.context / "key").symlink_to(secret / "key")
    (builder.context / "dir").mkdir()
    (builder.context / "dir/link").symlink_to("../../../secret")
    with pytest.raises(ContextError, match="is not in the build context"):
        builder.build(f"FROM base\nCOPY {source} /x\n")
    with pytest.raises(ContextError):
        builder.build(f"FROM base\nADD {source}/* /x/\n")


def test_a_link_inside_a_folder_is_copied_as_a_link(builder: Builder, secret: Path) -> None:
    (builder.context / "d").mkdir()
    (builder.context / "d/link").symlink_to(secret / "key")
    built = builder.build("FROM base\nCOPY d /d\n")
    assert str((builder.tree(built) / "d/link").readlink()) == str(secret / "key")


@pytest.mark.parametrize("source", ["../secret/key", "a/../../secret/key", "/../secret/key"])
def test_dots_out_of_the_context(builder: Builder, secret: Path, source: str) -> None:
    with pytest.raises(ContextError, match="leads out of the build context"):
        builder.build(f"FROM base\nCOPY {source} /x\n")


def test_a_destination_through_links_stays_in_the_image(builder: Builder, secret: Path) -> None:
    def fill(root: Path) -> None:
        (root / "out").symlink_to(secret)
        (root / "up").symlink_to("../../../../../../../.." + str(secret))
        (root / "proc").symlink_to("/proc/self/root")

    builder.images.known["trap"] = builder.make_image(fill)
    builder.put("key", "from the context")
    built = builder.build(
        "FROM trap\nCOPY key /out/\nCOPY key /up/other\nCOPY key /out/key\nWORKDIR /out/made\n"
        "COPY key ../../../../../../../../etc/x\n"
    )
    tree = builder.tree(built)
    inside = str(secret).lstrip("/")
    assert tree.names(inside) == ["key", "made", "other"]
    assert tree.text("etc/x") == "from the context"


def test_links_of_a_stage_stay_in_the_stage(builder: Builder, secret: Path) -> None:
    def fill(root: Path) -> None:
        (root / "out").symlink_to(secret)
        (root / "host").symlink_to("/etc/shadow")

    builder.images.known["trap"] = builder.make_image(fill)
    for source in ("/out/key", "/host", "../../../etc/shadow", "/out"):
        with pytest.raises(ContextError):
            builder.build(f"FROM base\nCOPY --from=trap {source} /x\n")


@pytest.mark.parametrize("line", ["COPY --chown=evil f /x", "USER evil\nRUN true"])
def test_passwd_of_the_image_that_is_a_link_to_the_hosts(
    builder: Builder, tmp_path: Path, line: str
) -> None:
    passwd = tmp_path / "passwd"
    passwd.write_text("evil:x:0:0::/:/bin/sh\n")

    def fill(root: Path) -> None:
        make_base(root)
        (root / "etc/passwd").unlink()
        (root / "etc/group").unlink()
        (root / "etc/passwd").symlink_to(passwd)
        (root / "etc/group").symlink_to(passwd)

    builder.images.known["trap"] = builder.make_image(fill)
    builder.put("f", "")
    with pytest.raises(QuaysideError, match="evil"):
        builder.build(f"FROM trap\n{line}\n")


def test_devices_of_a_context_are_refused(builder: Builder) -> None:
    os.mkfifo(builder.context / "pipe")
    with pytest.raises(ContextError, match="pipe is a device, a fifo or a socket"):
        builder.build("FROM base\nCOPY . /\n")
    assert builder.build("FROM base\nCOPY . /\n", ignore="pipe").states == ["cached", "built"]


def test_an_archive_that_climbs_out_of_the_image(builder: Builder, tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo("../../../evil")
        tar.addfile(info)
    builder.put("a.tar", out.getvalue())
    with pytest.raises(ContextError, match="leads outside") as caught:
        builder.build("FROM base\nADD a.tar /x/\n")
    assert caught.value.context["line"] == 2
    with pytest.raises(ContextError):
        unpack_archive(builder.context / "a.tar", tmp_path / "out")


def test_names_never_reach_a_shell(builder: Builder, tmp_path: Path) -> None:
    name = "$(touch x);`touch y` \n&"
    builder.put(name, "content")
    built = builder.build("FROM base\nCOPY . /\n")
    assert builder.tree(built).text(name) == "content"
