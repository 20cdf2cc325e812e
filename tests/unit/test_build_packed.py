"""A context that stays a tar says the same as the folder it unpacks to, and unpacks when asked."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.build.archive import unpack_archive
from engine.build.context import BuildContext, SourceTree
from engine.build.packed import PackedContext, PackedTree
from engine.dockerfile.dockerignore import DockerIgnore
from engine.errors import ContextError


def write(path: Path, *members: tuple[tarfile.TarInfo, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for info, data in members:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def member(name: str, data: bytes = b"", **values: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.mtime = 1_700_000_000
    for key, value in values.items():
        setattr(info, key, value)
    return info, data


MEMBERS = (
    member("top/", type=tarfile.DIRTYPE, mode=0o750),
    member("top/a.txt", b"aaa", mode=0o4755),
    member("top/deep/er/b.md", b"b" * 100_000),
    member("top/twice", b"first"),
    member("top/twice", b"second", mode=0o600),
    member("hard", type=tarfile.LNKTYPE, linkname="top/a.txt"),
    member("soft", type=tarfile.SYMTYPE, linkname="/top/deep/../a.txt"),
    member("folder", type=tarfile.SYMTYPE, linkname="top/deep"),
    member("out", type=tarfile.SYMTYPE, linkname="../../../etc"),
    member("loop", type=tarfile.SYMTYPE, linkname="loop"),
    member("Dockerfile", b"FROM x\n"),
)
PATTERNS = (
    ["."],
    ["top"],
    ["top/*"],
    ["*", "top/deep"],
    ["folder/er"],
    ["soft"],
    ["hard"],
    ["f*/e?"],
    ["top/deep/er/b.md", "top/twice"],
)


@pytest.fixture(params=["w", "w:gz"])
def packed(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[PackedContext]:
    path = write(tmp_path / "context.tar", *MEMBERS, mode=request.param)
    made = PackedContext.open(path, tmp_path / "context", ["Dockerfile"], 100)
    yield made
    made.close()


def said(tree: SourceTree, patterns: list[str]) -> object:
    try:
        sources = tree.match(patterns)
    except ContextError as error:
        return error.message, error.context
    return [(source, tree.listing(source).lines) for source in sources]


@pytest.mark.parametrize("ignore", ["", "top/deep\n", "top\n!top/deep/er/b.md\n*.txt\n"])
def test_it_says_what_the_unpacked_folder_says(
    packed: PackedContext, tmp_path: Path, ignore: str
) -> None:
    unpack_archive(packed.path, tmp_path / "beside")
    rules = DockerIgnore.parse(ignore) if ignore else None
    folder, tar = BuildContext(tmp_path / "beside", rules), PackedTree(packed, rules)
    for patterns in (*PATTERNS, ["nothing"], ["loop"], ["out/passwd"], ["soft/x"], ["top/../.."]):
        assert said(tar, patterns) == said(folder, patterns), patterns
    assert not packed.folder.exists()


def test_files_are_unpacked_when_one_is_needed(packed: PackedContext) -> None:
    assert packed.kept == {"Dockerfile": b"FROM x\n"}
    tree = PackedTree(packed)
    (source,) = tree.match(["top"])
    listing = tree.listing(source)
    entry = next(entry for entry in listing.entries if entry.path == "a.txt")
    assert packed.path.exists()
    assert Path(tree.real(source, entry)).read_bytes() == b"aaa"
    assert packed.folder.is_dir()
    assert not packed.path.exists()
    assert Path(tree.real(source, entry)).is_relative_to(packed.folder)
    assert [path.name for path in packed.folder.parent.iterdir()] == ["context"]


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ((member("../x"),), "leads outside"),
        ((member("/x"),), "absolute"),
        ((member("a", type=tarfile.SYMTYPE, linkname="/etc"), member("a/b")), "below a"),
        ((member("h", type=tarfile.LNKTYPE, linkname="no"),), "hard link"),
        ((member("d", type=tarfile.CHRTYPE),), "a device"),
    ],
)
def test_what_is_not_unpacked_is_not_listed_either(
    tmp_path: Path, members: tuple[tuple[tarfile.TarInfo, bytes], ...], words: str
) -> None:
    path = write(tmp_path / "bad.tar", *members)
    with pytest.raises(ContextError, match=words):
        PackedContext.open(path, tmp_path / "context", (), 0)
