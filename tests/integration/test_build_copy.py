"""COPY, ADD and WORKDIR: what lies in the image afterwards, by Docker's rules."""

from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile
from pathlib import Path

import pytest

from engine.errors import ContextError, Unsupported
from tests.builder import Builder, builder

__all__ = ["builder"]


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def owner_of(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_uid, status.st_gid


def test_files_and_folders(builder: Builder) -> None:
    builder.put("a.txt", "a", 0o600)
    builder.put("src/b.txt", "b", 0o755)
    builder.put("src/deep/c.txt", "c")
    (builder.context / "src/link").symlink_to("deep/c.txt")
    os.chown(builder.context / "a.txt", 1234, 1234)
    (builder.context / "src/deep").chmod(0o711)
    os.utime(builder.context / "a.txt", ns=(1, 1_234_567_890_123_456_789))
    built = builder.build(
        "FROM scratch\nCOPY a.txt /\nCOPY a.txt /x/y\nCOPY a.txt /dir/\nCOPY src /all\n"
        "WORKDIR /w\nCOPY src/deep a.txt ./here/\nCOPY *.txt src /\n"
    )
    tree = builder.tree(built)
    assert tree.names() == [
        "a.txt",
        "all",
        "all/b.txt",
        "all/deep",
        "all/deep/c.txt",
        "all/link",
        "b.txt",
        "deep",
        "deep/c.txt",
        "dir",
        "dir/a.txt",
        "link",
        "w",
        "w/here",
        "w/here/a.txt",
        "w/here/c.txt",
        "x",
        "x/y",
    ]
    assert tree.text("x/y") == "a"
    assert (tree / "x/y").stat().st_mtime_ns == 1_234_567_890_123_456_789
    assert mode_of(tree / "x/y") == 0o600
    assert mode_of(tree / "all/b.txt") == 0o755
    assert mode_of(tree / "all/deep") == 0o711
    assert mode_of(tree / "w/here") == 0o711  # made for the folder, as the folder
    assert mode_of(tree / "dir") == 0o755
    assert owner_of(tree / "a.txt") == (0, 0)
    assert str((tree / "all/link").readlink()) == "deep/c.txt"
    assert built.config.working_dir == "/w"


def test_into_what_the_image_has(builder: Builder) -> None:
    def fill(root: Path) -> None:
        (root / "app/kept").mkdir(parents=True)
        (root / "app/kept/old").write_text("old")
        (root / "app/file").write_text("old")
        (root / "app/link").symlink_to("file")
        (root / "real").mkdir(mode=0o700)
        (root / "alias").symlink_to("/real")
        (root / "dangling").symlink_to("made/by/copy")
        os.chown(root / "app", 7, 8)
        os.utime(root / "app", (5, 5))

    builder.images.known["old"] = builder.make_image(fill)
    builder.put("app/file", "new")
    builder.put("app/link", "a file now")
    builder.put("app/kept/new", "new")
    (builder.context / "app/kept").chmod(0o750)
    built = builder.build(
        "FROM old\nCOPY app /app\nCOPY app/file /alias/\nCOPY app/file /app/kept\n"
        "COPY app/file /dangling/\nCOPY app/file /alias\n"
    )
    tree = builder.tree(built)
    assert tree.text("app/file") == "new"
    assert not (tree / "app/link").is_symlink()
    assert tree.text("app/link") == "a file now"
    assert tree.names("app/kept") == ["file", "new", "old"]
    assert mode_of(tree / "app/kept") == 0o750
    assert (owner_of(tree / "app"), (tree / "app").stat().st_mtime) == ((7, 8), 5)
    assert (tree / "alias").is_symlink()
    assert tree.text("real/file") == "new"
    assert mode_of(tree / "real") == 0o700
    assert tree.text("made/by/copy/file") == "new"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("COPY file /etc", ""),
        ("COPY dir /etc/passwd", "/etc/passwd is no folder"),
        ("COPY file /etc/passwd/x", "/etc/passwd is no folder"),
        ("COPY tree /", "cannot copy the folder passwd: /etc/passwd is no folder"),
        ("COPY over /", "cannot replace the folder /etc with a file"),
        ("COPY file dir/f /new", "not a folder's name"),
        ("COPY ../file /", "leads out of the build context"),
        ("COPY missing /", "missing is not in the build context"),
        ("COPY .wh.file /", r"\.wh\."),
    ],
)
def test_what_cannot_be_copied(builder: Builder, line: str, message: str) -> None:
    builder.put("file", "")
    builder.put("dir/f", "")
    builder.put("tree/etc/passwd/x", "")
    builder.put("over/etc", "")
    builder.put(".wh.file", "")
    line = line.replace("COPY tree /", "COPY tree/etc /etc")
    if not message:
        assert "etc/file" in builder.tree(builder.build(f"FROM base\n{line}\n")).names()
        return
    with pytest.raises(ContextError, match=message) as caught:
        builder.build(f"FROM base\n{line}\n")
    assert caught.value.context["line"] == 2
    assert caught.value.context["source"] == line
    assert builder.log.states == ["cached", "failed"]


def test_owners_and_modes(builder: Builder) -> None:
    builder.put("d/f", "", 0o644)
    built = builder.build(
        "FROM base\nCOPY --chown=app d /one\nCOPY --chown=app:staff d/f /two/\n"
        "COPY --chown=5 d /three\nCOPY --chown=5:6 --chmod=4711 d/f /four\nARG WHO=1000:0\n"
        "COPY --chown=$WHO d/f /five\n"
    )
    tree = builder.tree(built)
    assert owner_of(tree / "one") == owner_of(tree / "one/f") == (1000, 1000)
    assert owner_of(tree / "two") == owner_of(tree / "two/f") == (1000, 50)
    assert owner_of(tree / "three/f") == (5, 5)
    assert owner_of(tree / "four") == (5, 6)
    assert mode_of(tree / "four") == 0o4711
    assert owner_of(tree / "five") == (1000, 0)


def test_from_another_stage(builder: Builder) -> None:
    built = builder.build(
        "FROM base AS make\n"
        "RUN mkdir -p /out/d && echo x > /out/d/f && ln /out/d/f /out/hard && ln -s d/f /out/l "
        "&& mkfifo /out/pipe && chown -R 3:4 /out && chmod 2755 /out/d\n"
        "FROM scratch\nCOPY --from=make /out /\nCOPY --from=0 /out/l /followed\n"
        "COPY --from=make --chown=9 /out/d/f /mine\n"
    )
    tree = builder.tree(built)
    assert tree.names() == ["d", "d/f", "followed", "hard", "l", "mine", "pipe"]
    assert owner_of(tree / "d/f") == (3, 4)
    assert (tree / "hard").stat().st_nlink == 2
    assert stat.S_ISFIFO((tree / "pipe").lstat().st_mode)
    assert mode_of(tree / "d") == 0o2755
    assert tree.text("followed") == "x\n"
    assert owner_of(tree / "mine") == (9, 9)


def test_from_an_image_with_its_capabilities(builder: Builder) -> None:
    capability = bytes.fromhex("0100000200040000000000000000000000000000")

    def fill(root: Path) -> None:
        (root / "tool").write_text("x")
        os.setxattr(root / "tool", "security.capability", capability)
        os.setxattr(root / "tool", "user.note", b"kept")

    builder.images.known["tools"] = builder.make_image(fill)
    built = builder.build("FROM base\nCOPY --from=tools /tool /usr/bin/tool\n")
    tool = builder.tree(built) / "usr/bin/tool"
    assert os.getxattr(tool, "security.capability") == capability
    assert os.getxattr(tool, "user.note") == b"kept"
    with pytest.raises(ContextError, match="nope is not in tools"):
        builder.build("FROM base\nCOPY --from=tools /nope /\n")


def test_ignored_files_do_not_come_in(builder: Builder) -> None:
    for name in ("a.txt", "node_modules/x/y.js", "sub/node_modules/z", "sub/b.txt"):
        builder.put(name)
    built = builder.build("FROM scratch\nCOPY . /\n", ignore="**/node_modules\n")
    assert builder.tree(built).names() == ["a.txt", "sub", "sub/b.txt"]


def archive(**files: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name.replace("__", "/"))
            info.size, info.uid, info.gid, info.mode = len(text), 11, 12, 0o640
            tar.addfile(info, io.BytesIO(text.encode()))
    return out.getvalue()


def test_add_unpacks_local_archives(builder: Builder) -> None:
    builder.put("a.tar", archive(one="1", sub__two="2"))
    builder.put("b.tgz", gzip.compress(archive(three="3")))
    builder.put("plain.gz", gzip.compress(b"no archive"))
    builder.put("broken.gz", b"\x1f\x8b\x08\x00broken")
    built = builder.build(
        "FROM base\nADD a.tar b.tgz /add/\nADD plain.gz broken.gz /files/\nCOPY a.tar /copied/\n"
        "ADD --chown=1:2 a.tar /owned\n"
    )
    tree = builder.tree(built)
    assert tree.names("add") == ["one", "sub", "sub/two", "three"]
    assert owner_of(tree / "add/one") == (11, 12)
    assert mode_of(tree / "add/one") == 0o640
    assert tree.names("files") == ["broken.gz", "plain.gz"]
    assert tree.names("copied") == ["a.tar"]
    assert owner_of(tree / "owned/one") == (1, 2)


def test_an_address_that_comes_from_a_variable(builder: Builder) -> None:
    with pytest.raises(Unsupported) as caught:
        builder.build("FROM base\nARG U\nADD $U /x\n", args={"U": "https://example.org/"})
    assert caught.value.context["line"] == 3


def test_heredocs(builder: Builder) -> None:
    built = builder.build(
        "FROM base\nARG WHO=you\n"
        "COPY <<one <<'two' /dir/\nhello $WHO\none\nas $IS\ntwo\n"
        "COPY <<EOF /file\nx\nEOF\n"
    )
    tree = builder.tree(built)
    assert tree.text("dir/one") == "hello you\n"
    assert tree.text("dir/two") == "as $IS\n"
    assert tree.text("file") == "x\n"
    assert mode_of(tree / "file") == 0o644


def test_workdir_makes_a_layer_only_where_it_makes_a_folder(builder: Builder) -> None:
    built = builder.build("FROM base\nWORKDIR /etc\nWORKDIR made/here\nWORKDIR /etc/made\n")
    assert len(built.result.layers) == 2
    assert [entry.empty_layer for entry in built.result.image_config.history] == [
        False,
        True,
        False,
        True,
    ]
    assert builder.tree(built).names("/etc/made") == ["here"]


def test_the_same_sources_give_the_same_layer(builder: Builder) -> None:
    builder.put("src/a", "a")
    builder.put("src/b/c", "c")
    text = "FROM base\nCOPY src /new/place/\nCOPY src/a /etc/\n"
    first = builder.build(text)
    again = builder.build(text, no_cache=True)
    assert again.result.layers == first.result.layers


def test_copying_again_shares_what_did_not_change(builder: Builder) -> None:
    for n in range(20):
        builder.put(f"src/f{n}", f"{n}")
    text = "FROM base\nCOPY src /app\n"
    first = builder.build(text)
    builder.put("src/f3", "other")
    second = builder.build(text)
    trees = builder.tree(first), builder.tree(second)
    layers = [
        builder.snapshots.layer(built.result.image_config.rootfs.chain_id) / "app"
        for built in (first, second)
    ]
    same = [(layers[0] / f"f{n}").samefile(layers[1] / f"f{n}") for n in range(20)]
    assert same == [n != 3 for n in range(20)]
    assert [tree.text("app/f3") for tree in trees] == ["3", "other"]
    assert [tree.text("app/f4") for tree in trees] == ["4", "4"]
    fresh = builder.build(text, no_cache=True)
    assert fresh.result.layers == second.result.layers
