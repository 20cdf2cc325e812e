"""A build's source on this machine: its folder, the context in it, the Dockerfile's text.

Uploads and rows are web's; what is read of them here is looked at first (security case 24). A
context is kept (`builds/N/context`), so that "again" needs no second upload; reconcile's `tidy`
drops old ones.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from engine.build.archive import unpack_archive
from engine.build.packed import PackedContext
from engine.errors import ContextError, InvalidInput, NotFound
from engine.models import Build
from engine.services import uploads
from engine.services.work.host import host

# A Dockerfile goes into a row and onto a page, an ignore file into memory.
_MAX_TEXT = 1024 * 1024
_TAR = "context.tar"


def folder_of(build: Build) -> Path:
    return host().config.builds_dir / str(build.pk)


def lineage(build: Build) -> Iterator[Build]:
    """The build and those it goes back to, in its namespace. Rows that web made into a ring end
    where it closes."""
    seen: set[int] = set()
    source: Build | None = build
    while source and source.namespace_id == build.namespace_id and source.pk not in seen:
        seen.add(source.pk)
        yield source
        source = source.again


def context_of(build: Build, folder: Path) -> Path | PackedContext:
    """What is built: unpacked from the upload, or what an earlier build kept. A tar that root's
    side has received itself (the Docker API's) stays one; close it.

    Unpacked aside and renamed, so that one that is there is whole. Raises ContextError."""
    if build.upload is None and build.again is not None:
        for source in lineage(build):
            kept = _kept(build, folder_of(source))
            if kept is not None:
                return kept
        raise ContextError(
            f"the source of build #{build.again.number} is no longer kept",
            hint="choose the folder again",
            field="upload",
        )
    context = folder / "context"
    if build.upload is not None and _is_ours(uploads.upload_path(build.upload)):
        return _opened(build, uploads.upload_path(build.upload), folder).moved(folder / _TAR)
    kept = _kept(build, folder)
    if kept is not None:
        return kept
    aside = folder / "context.part"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        if build.upload is not None:
            with uploads.opened(build.upload) as descriptor:
                unpack_archive(Path(f"/proc/self/fd/{descriptor}"), aside)
        aside.rename(context)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    if build.upload is not None:
        uploads.upload_path(build.upload).unlink(missing_ok=True)
    return context


def _kept(build: Build, folder: Path) -> Path | PackedContext | None:
    """The source that lies in a build's folder, if it is still there."""
    with suppress(FileNotFoundError):  # another build has just unpacked it
        return _opened(build, folder / _TAR, folder)
    return folder / "context" if (folder / "context").is_dir() else None


def _opened(build: Build, archive: Path, folder: Path) -> PackedContext:
    keep = [build.dockerfile_path, *_ignore_names(build)]
    return PackedContext.open(archive, folder / "context", keep, _MAX_TEXT)


def has_source(folder: Path) -> bool:
    """Of a build's folder: whether it could be built again from it."""
    return (folder / "context").is_dir() or (folder / _TAR).exists()


def drop_source(folder: Path) -> None:
    """Idempotent."""
    (folder / _TAR).unlink(missing_ok=True)
    if (folder / "context").is_dir():
        shutil.rmtree(folder / "context")


def _is_ours(archive: Path) -> bool:
    """Whether it is root's alone, as the API leaves it: nobody else can have written it, or can
    write it yet. (uploads.upload_append's are their group's too.)"""
    try:
        status = archive.lstat()
    except FileNotFoundError:
        return False
    ours = status.st_uid == 0 and not status.st_mode & 0o077
    return ours and stat.S_ISREG(status.st_mode) and status.st_nlink == 1


def _ignore_names(build: Build) -> tuple[str, str]:
    return (f"{build.dockerfile_path}.dockerignore", ".dockerignore")


def texts_of(build: Build, context: Path | PackedContext) -> tuple[str, str]:
    """(Dockerfile, .dockerignore); NAME.dockerignore beside the Dockerfile wins, as BuildKit has
    it. Raises NotFound with the paths that were looked at, InvalidInput for one that is no text."""
    data = _content(context, build.dockerfile_path)
    if build.inline:
        dockerfile = build.dockerfile
    elif data is None:
        raise NotFound(
            f"no {build.dockerfile_path} in what was uploaded",
            hint="choose the folder that has it, or say where it lies in it",
            field="dockerfile_path",
            path=build.dockerfile_path,
        )
    else:
        dockerfile = _text(build.dockerfile_path, data)
    for name in _ignore_names(build):
        ignore = _content(context, name)
        if ignore is not None:
            return dockerfile, _text(name, ignore)
    return dockerfile, ""


def _content(context: Path | PackedContext, name: str) -> bytes | None:
    """Of a regular file of the context; None where there is none. Raises InvalidInput."""
    if isinstance(context, PackedContext):
        real = context.resolve(name)
        node = context.nodes.get(real) if real is not None else None
        if real is None or node is None or not stat.S_ISREG(node.kind):
            return None
        if node.size > _MAX_TEXT:
            return bytes(_MAX_TEXT + 1)
        # One behind a link was not foreseen.
        return context.kept[real] if real in context.kept else _read(context.unpacked() / real)
    path = _inside(context, name)
    return None if path is None else _read(path)


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_MAX_TEXT + 1)


def _inside(context: Path, name: str) -> Path | None:
    """A regular file of the context, or None; links do not lead out of it."""
    path = Path(os.path.realpath(context / name))
    if not path.is_relative_to(os.path.realpath(context)):
        raise InvalidInput(f"{name} leads out of the context", field="dockerfile_path")
    return path if path.is_file() else None


def _text(path: str, data: bytes) -> str:
    name = path.rpartition("/")[2]
    if len(data) > _MAX_TEXT:
        raise InvalidInput(
            f"{name} is larger than {_MAX_TEXT >> 20} MiB",
            hint="is it the file you meant?",
            field="dockerfile_path",
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"{name} is not UTF-8 text", hint="save it as UTF-8", field="dockerfile_path"
        ) from error
    if "\0" in text:  # which PostgreSQL would not keep either
        raise InvalidInput(f"{name} is not text", field="dockerfile_path")
    return text
