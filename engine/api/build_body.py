"""The body of POST /build: the context's tar on its way into a file.

Small ones (most) are written in one go with the rest of the work; larger ones as they come, bounded
by QUAYSIDE_BUILD_CONTEXT_MAX and by what the disk has to spare. The file is gone afterwards unless
a build took it. Only the Dockerfile is read here; unpacking is the worker's.
"""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from engine.api.call import Call
from engine.build.archive import tar_of
from engine.errors import ContextError, InvalidInput, NoSpace, UserError
from engine.snapshots.tar_reader import FILE

MAX_SIZE = 20 * 1024**3
_SETTING = "QUAYSIDE_BUILD_CONTEXT_MAX"
# What a disk keeps free of contexts: the build itself needs room too.
_SPARE = 512 * 1024**2
_IN_MEMORY = 1024 * 1024
_MAX_DOCKERFILE = 1024 * 1024


class Body:
    """The archive as a file at `path`, of `size` bytes. For one thread at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self._most = _most()
        self._file: int | None = None
        self._checked = 0

    def write(self, data: bytes) -> None:
        """Raises InvalidInput (too large), NoSpace."""
        if self._file is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self._file = os.open(self.path, flags, 0o600)
        if self.size + len(data) > self._most:
            raise InvalidInput(
                f"the build context is larger than {self._most} bytes",
                hint=f"leave out what the image does not need, in .dockerignore ({_SETTING})",
            )
        if self.size >= self._checked:
            self._checked += 64 * 1024**2
            if shutil.disk_usage(self.path.parent).free < _SPARE + len(data):
                raise NoSpace("the disk is full: no room for the build context")
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._file, view) :]
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise NoSpace("the disk is full: no room for the build context") from error
        self.size += len(data)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def dockerfile(self, name: str) -> tuple[str, str]:
        """(its path in the archive, its text); `dockerfile` in small letters will do for the
        default name. Read again by the worker, whose word counts: here it is for the mistakes.

        Raises UserError and InvalidInput in moby's words."""
        self.close()
        missing = UserError(f"Cannot locate specified Dockerfile: {name}")
        if not self.size:
            raise missing
        lower: str | None = None
        try:
            with self.path.open("rb") as file, tar_of(file) as reader:
                for entry in reader:
                    found = _clean(os.fsdecode(entry.name))
                    if entry.type != FILE or found not in (name, "dockerfile"):
                        continue
                    if entry.size > _MAX_DOCKERFILE:
                        raise InvalidInput(f"{found} is larger than {_MAX_DOCKERFILE >> 20} MiB")
                    data = b"".join(bytes(piece) for _, piece in reader.data())
                    text = data.decode("utf-8-sig", "replace")
                    if found == name:
                        return name, text
                    lower = text
        except ContextError as error:
            raise UserError(f"the build context cannot be read: {error.message}") from error
        if lower is None or name != "Dockerfile":
            raise missing
        return "dockerfile", lower


@asynccontextmanager
async def received(call: Call) -> AsyncIterator[Body]:
    """The whole body. Raises InvalidInput, NoSpace, ConnectionError."""
    path = call.config.home / "uploads" / f".api-{secrets.token_hex(8)}"
    body = Body(path)
    try:
        content = call.request.content
        waiting: list[bytes] = []
        held = 0
        while data := await content.readany():
            waiting.append(data)
            held += len(data)
            if held >= _IN_MEMORY:
                await asyncio.to_thread(body.write, b"".join(waiting))
                waiting, held = [], 0
        if waiting:
            body.write(b"".join(waiting))
        yield body
    finally:
        body.close()
        path.unlink(missing_ok=True)


def _clean(name: str) -> str:
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def _most() -> int:
    text = os.environ.get(_SETTING, "")
    return int(text) if text.isdecimal() else MAX_SIZE
