"""Sources of COPY: globs, ignored files, digests, and the index that remembers them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from engine.build.context import BuildContext
from engine.build.digests import DigestIndex
from engine.dockerfile.dockerignore import DockerIgnore
from engine.errors import Cancelled, ContextError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    top = tmp_path / "context"
    for name in ("a.js", "b.js", ".hidden", "src/x.js", "src/deep/y.js", "src/z.md", "한글.txt"):
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (top / "empty").mkdir()
    return top


def names(root: Path, *patterns: str, ignore: str = "") -> list[str]:
    context = BuildContext(root, DockerIgnore.parse(ignore) if ignore else None)
    return [source.path for source in context.match(patterns)]


def below(root: Path, pattern: str, ignore: str = "") -> list[str]:
    context = BuildContext(root, DockerIgnore.parse(ignore) if ignore else None)
    (source,) = context.match([pattern])
    return [entry.path for entry in context.listing(source).entries]


def test_globs(root: Path) -> None:
    assert names(root, "*.js") == ["a.js", "b.js"]
    assert names(root, "*") == [".hidden", "a.js", "b.js", "empty", "src", "한글.txt"]
    assert names(root, "src/*.js", "./b.js", "/a.js") == ["src/x.js", "b.js", "a.js"]
    assert names(root, "*/*/y.js") == ["src/deep/y.js"]
    assert names(root, "[ab].js") == ["a.js", "b.js"]
    assert names(root, "src/../a.js") == ["a.js"]
    assert names(root, ".") == [""]
    assert names(root, "a.js", "nothing*") == ["a.js"]


def test_what_is_not_there(root: Path) -> None:
    with pytest.raises(ContextError, match=r"nope\.js is not in the build context"):
        names(root, "a.js", "nope.js")
    with pytest.raises(ContextError, match="no file matches"):
        names(root, "*.nope")
    with pytest.raises(ContextError, match="no file matches"):
        names(root, "nope/*.js")


def test_listings_are_in_order_and_whole(root: Path) -> None:
    assert below(root, "src") == ["", "deep", "deep/y.js", "x.js", "z.md"]
    assert below(root, "a.js") == [""]
    assert below(root, "empty") == [""]


def test_ignored_files_are_not_there(root: Path) -> None:
    assert below(root, ".", "src\n*.js\n") == ["", ".hidden", "empty", "한글.txt"]
    assert below(root, ".", "*\n!src/deep/y.js\n") == ["", "src", "src/deep", "src/deep/y.js"]
    assert below(root, "src", "**/*.js\n!src/x.js\n") == ["", "deep", "x.js", "z.md"]
    assert names(root, "*.js", ignore="b.js\n") == ["a.js"]
    with pytest.raises(ContextError, match=r"left out of the build context by \.dockerignore"):
        names(root, "a.js", ignore="*.js\n")


def test_digests_are_of_content_not_of_times(root: Path) -> None:
    before = BuildContext(root).digest(".")
    os.utime(root / "a.js", (1, 1))
    os.chown(root / "a.js", 1234, 5678)
    assert BuildContext(root).digest(".") == before


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "a.js").write_text("A.js"),
        lambda root: (root / "a.js").chmod(0o755),
        lambda root: (root / "a.js").rename(root / "c.js"),
        lambda root: (root / "src/deep/new").touch(),
        lambda root: (root / "src/deep/new").symlink_to("y.js"),
        lambda root: (root / "empty").rmdir(),
        lambda root: (root / "empty").chmod(0o700),
        lambda root: (root / "한글.txt").unlink(),
    ],
)
def test_everything_that_counts_changes_the_digest(root: Path, change: object) -> None:
    before = BuildContext(root).digest(".")
    change(root)  # type: ignore[operator]
    assert BuildContext(root).digest(".") != before


def test_a_links_target_counts(root: Path) -> None:
    (root / "link").symlink_to("a.js")
    before = BuildContext(root).digest(".")
    (root / "link").unlink()
    (root / "link").symlink_to("b.js")
    assert BuildContext(root).digest(".") != before


def settle(root: Path) -> None:
    """Make the files older than the racy moment."""
    time.sleep(0.03)


def test_the_index_reads_only_what_changed(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(root)
    read: list[str] = []
    real = os.open

    def spy(path: str, *args: int, **more: int) -> int:
        if str(path).startswith(str(root)) and not args[0] & os.O_PATH:
            read.append(Path(path).name)
        return real(path, *args, **more)

    def digest() -> str:
        index = DigestIndex(tmp_path / "index.json")
        context = BuildContext(root, index=index)
        found = context.digest(".")
        context.save()
        return found

    monkeypatch.setattr(os, "open", spy)
    first = digest()
    assert len(read) == 7
    read.clear()
    assert digest() == first
    assert read == []
    (root / "src/x.js").write_text("Src/x.js")  # the same size
    settle(root)
    assert digest() != first
    assert read == ["x.js"]
    os.utime(root / "src/x.js", ns=(1, 1))  # a time set back does not hide a change
    (root / "src/x.js").write_text("sRc/x.js")
    os.utime(root / "src/x.js", ns=(1, 1))
    read.clear()
    digest()
    assert read == ["x.js"]


def test_a_file_just_written_is_not_remembered(root: Path, tmp_path: Path) -> None:
    index = DigestIndex(tmp_path / "index.json")
    (root / "a.js").write_text("1")
    (root / "b.js").touch()
    context = BuildContext(root, index=index)
    first = context.digest("a.js")
    context.save()
    (root / "a.js").write_text("2")
    assert BuildContext(root, index=DigestIndex(tmp_path / "index.json")).digest("a.js") != first


def test_a_damaged_index_is_learnt_anew(root: Path, tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text('{"version": 1, "fil')
    context = BuildContext(root, index=DigestIndex(tmp_path / "index.json"))
    assert context.digest(".") == BuildContext(root).digest(".")


def test_cancelled(root: Path) -> None:
    context = BuildContext(root, cancelled=lambda: True)
    with pytest.raises(Cancelled):
        context.digest(".")
