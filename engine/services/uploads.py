"""Uploads in pieces: web's user writes them, the worker reads them with suspicion."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from engine.errors import Conflict, ContextError, EngineError, InvalidInput, NoSpace
from engine.models import Namespace, Upload

MAX_PIECE = 8 * 1024 * 1024
MAX_SIZE = 20 * 1024**3


def upload_path(upload: Upload) -> Path:
    path: Path = settings.ENGINE.home / "uploads" / str(upload.pk)
    return path


def upload_create(namespace: Namespace, user_id: int, filename: str, size: int | None) -> Upload:
    """`size` in bytes, None while not known (a folder that is packed on the way).

    Raises InvalidInput for what is neither a tar (also .gz, .xz, .zst, .bz2) nor a zip."""
    name = filename.lower()
    if "\0" in name:
        raise InvalidInput("a file's name has no NUL", field="upload")
    if name.endswith(".zip"):
        kind = Upload.Format.ZIP
    elif ".tar" in name or name.endswith((".tgz", ".txz", ".tbz2", ".tzst")):
        kind = Upload.Format.TAR
    else:
        raise InvalidInput(
            f"not an archive: {filename}",
            hint="choose a folder, a .tar (also .tar.gz, .tar.xz, .tar.zst) or a .zip",
            field="upload",
        )
    if size is not None and size > MAX_SIZE:
        raise InvalidInput(
            f"{filename} is larger than {MAX_SIZE >> 30} GiB",
            hint="leave out what the image does not need, in .dockerignore",
            field="upload",
        )
    return Upload.objects.create(
        namespace=namespace, user_id=user_id, filename=filename[:255], format=kind, size=size
    )


def upload_append(upload: Upload, offset: int, data: bytes) -> int:
    """Write one piece at `offset` and return the next. A piece sent again is harmless.

    Raises Conflict (context: `offset`, where to go on) when a piece is missing before it, NoSpace,
    InvalidInput."""
    if len(data) > MAX_PIECE:
        raise InvalidInput("a piece is at most 8 MiB", field="upload")
    with transaction.atomic():
        row = Upload.objects.select_for_update().get(pk=upload.pk)
        if row.complete:
            raise Conflict("the upload is complete already", offset=row.received)
        if offset > row.received or offset < 0:
            raise Conflict(f"a piece is missing at {row.received}", offset=row.received)
        received = row.received
    end = offset + len(data)
    if end > (row.size if row.size is not None else MAX_SIZE):
        raise InvalidInput("more bytes than were announced", field="upload")
    path = upload_path(upload)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o640)
        try:
            view, at = memoryview(data), offset
            while view:
                written = os.pwrite(descriptor, view, at)
                view, at = view[written:], at + written
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise EngineError(f"cannot write {path}: {error.strerror}", path=str(path)) from error
        raise NoSpace(
            f"the piece at {offset} could not be written: {error.strerror}",
            hint="make room on the disk, then go on: what has arrived is kept",
        ) from error
    # A piece that is sent again counts too: whoever sends is still there.
    received = max(end, received)
    Upload.objects.filter(pk=upload.pk, received__lte=received).update(
        received=received, updated_at=timezone.now()
    )
    return received


def upload_finish(upload: Upload) -> Upload:
    """Raises Conflict when bytes are missing."""
    row = Upload.objects.get(pk=upload.pk)
    if row.size is not None and row.received != row.size:
        raise Conflict(f"bytes are missing from {row.received} on", offset=row.received)
    if row.received == 0:
        raise InvalidInput(
            "the upload is empty", hint="choose a folder or an archive", field="upload"
        )
    row.size, row.complete = row.received, True
    row.save(update_fields=["size", "complete", "updated_at"])
    return row


@contextmanager
def opened(upload: Upload) -> Iterator[int]:
    """Its file, to be read by root. Web's user owns the folder: a link put there must not make
    root read something else, nor a fifo make it wait. Raises ContextError."""
    path = upload_path(upload)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ContextError(
            f"the upload cannot be read: {error.strerror}", hint="upload it again", field="upload"
        ) from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ContextError("the upload is no file", hint="upload it again", field="upload")
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def taken(
    namespace: Namespace, user_id: int, filename: str, archive: Path, size: int
) -> Iterator[Upload]:
    """A whole tar that root's side has as a file already, made an upload, in one transaction with
    what its block writes; the file is moved. Neither is there when the block raises."""
    path: Path | None = None
    try:
        with transaction.atomic():
            upload = Upload.objects.create(
                namespace=namespace,
                user_id=user_id,
                filename=filename,
                format=Upload.Format.TAR,
                size=size,
                received=size,
                complete=True,
            )
            path = upload_path(upload)
            archive.rename(path)
            yield upload
    except BaseException:
        if path is not None:
            path.unlink(missing_ok=True)
        raise


def forget_strays(before: datetime) -> list[str]:
    """Archives of the API's that a killed process left half received."""
    folder = settings.ENGINE.home / "uploads"
    found = []
    for path in folder.glob(".api-*"):
        with suppress(FileNotFoundError):
            if path.stat().st_mtime < before.timestamp():
                path.unlink()
                found.append(f"half an upload dropped: {path.name}")
    return found
