"""Layers in and out of compression, with the digests found on the way.

Reading: gzip (isal), zstd, bzip2, xz or plain, told by their first bytes as Docker does.
Decompressing and hashing run in a thread of their own, beside the unpacking. Writing: gzip by isal
at level 1, without a time in it. Where a blob lies, and what it must be, is the caller's.
"""

from __future__ import annotations

import bz2
import hashlib
import lzma
import queue
import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, cast

import zstandard
from isal import igzip_lib, isal_zlib

from engine.errors import ContextError, InvalidInput, Unsupported
from engine.oci.digest import Digest
from engine.snapshots.tar_reader import Readable

RATIO, GRACE = 200, 1 << 30
"""A bomb is what grows more than 200-fold once it is over a GiB: no real layer does."""

_PIECE = 256 << 10
_AHEAD = 8
_MEMORY = 128 << 20
_IsalError = cast("type[Exception]", isal_zlib.error)  # its stubs call the class an instance


class LayerReader:
    """The uncompressed tar of a layer, ahead of its reader by up to 2 MiB.

    `read` gives pieces of its own choosing, none at the end. `finish` reads what is left (a tar
    reader stops at the end mark) and returns the diff_id. Raises ContextError for data that is
    damaged, cut off or grows without measure. Close it, or use it with `with`.
    """

    def __init__(
        self, pieces: Iterator[bytes], close: Callable[[], None], hashed: bool = True
    ) -> None:
        self._pieces = pieces
        self._close = close
        self._hash = hashlib.sha256() if hashed else None
        self._queue: queue.Queue[bytes | BaseException] = queue.Queue(_AHEAD)
        self._rest = b""
        self._ended = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="decompress", daemon=True)
        self._thread.start()

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes; with -1 all that is left."""
        if size < 0:
            return b"".join(iter(lambda: self.read(_PIECE), b""))
        if not self._rest:
            self._rest = self._take()
        if len(self._rest) <= size:
            piece, self._rest = self._rest, b""
        else:
            piece, self._rest = self._rest[:size], self._rest[size:]
        return piece

    def finish(self) -> Digest:
        """The diff_id: the digest of all that was and would have been read."""
        if self._hash is None:
            raise InvalidInput("this reader was opened without hashing")
        while self._take():
            pass
        self._rest = b""
        return Digest.from_hex(self._hash.hexdigest())

    def close(self) -> None:
        self._stop.set()
        while self._thread.is_alive():
            try:
                self._queue.get(timeout=0.01)  # it may wait for room
            except queue.Empty:
                continue
        self._close()

    def __enter__(self) -> LayerReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _take(self) -> bytes:
        if self._ended:
            return b""
        piece = self._queue.get()
        if isinstance(piece, BaseException):
            self._ended = True
            raise piece
        self._ended = not piece
        return piece

    def _work(self) -> None:
        try:
            for piece in self._pieces:
                if self._stop.is_set():
                    return
                if self._hash is not None:
                    self._hash.update(piece)
                self._queue.put(piece)
            self._queue.put(b"")
        except BaseException as error:  # noqa: BLE001 - raised again in the reader's thread
            self._queue.put(error)


def open_layer(
    source: Path | Readable,
    media_type: str = "",
    *,
    ratio: int = RATIO,
    grace: int = GRACE,
    hashed: bool = True,
) -> LayerReader:
    """Read a layer or archive from a file or stream (which stays open), compressed or not; without
    `hashed` its reader cannot say the diff_id, where somebody else finds it.

    The first bytes decide: registries carry wrong media types. Only what no reader could make
    sense of is refused by its type: Unsupported for an encrypted layer.
    """
    if media_type.endswith("+encrypted"):
        raise Unsupported(
            f"the layer is encrypted: {media_type}", hint="use the image in its plain form"
        )
    if isinstance(source, Path):
        file = source.open("rb", buffering=0)
        return LayerReader(_decompressed(file, ratio, grace), file.close, hashed)
    return LayerReader(_decompressed(source, ratio, grace), lambda: None, hashed)


class _Decompressor(Protocol):
    """bz2's, lzma's and isal's alike: one member of a stream."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


def _decompressed(source: Readable, ratio: int, grace: int) -> Iterator[bytes]:
    counted = _Counted(source)
    total = 0
    try:
        for piece in _plain(counted):
            total += len(piece)
            if total > grace and total > counted.count * ratio:
                raise ContextError(
                    f"the archive grows more than {ratio}-fold when it is unpacked",
                    hint="it looks like a bomb; if it is meant, store the file sparse or smaller",
                )
            yield piece
    except (zstandard.ZstdError, lzma.LZMAError, _IsalError, OSError, EOFError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's or the connection's, not the data's
        raise ContextError(
            f"the archive's compressed data is damaged: {error}", hint="make or pull it again"
        ) from error


def _plain(source: _Counted) -> Iterator[bytes]:
    head = source.peek()
    for magic, make in _KINDS.items():
        if head.startswith(magic):
            return _members(source, make, (magic,))
    if head.startswith(_ZSTD):
        return _members(source, _ZstdFrame, _ZSTD)
    return iter(lambda: source.read(_PIECE), b"")


def _members(
    source: _Counted, make: Callable[[], _Decompressor], magic: tuple[bytes, ...]
) -> Iterator[bytes]:
    """All members of a stream, one after another (pigz and estargz write many), and zeros after
    the last, which some writers pad with."""
    data = source.read(_PIECE)
    while data:
        member = make()
        while not member.eof:
            if member.needs_input and not data:
                data = source.read(_PIECE)
                if not data:
                    raise EOFError("it ends early")
            piece = member.decompress(data, _PIECE)
            data = b""
            if piece:
                yield piece
        data = member.unused_data
        while not (data := data.lstrip(b"\0")) and (more := source.read(_PIECE)):
            data = more
        if 0 < len(data) < len(magic[0]):
            data += source.read(_PIECE)
        if data and not data.startswith(magic):
            raise EOFError("something else follows it")


class _ZstdFrame:
    """A frame of zstd, like the others' members; zstandard itself bounds no output, so it gets
    little input at a time (4 bytes can stand for 128 KiB)."""

    _SLICE = 2048

    def __init__(self) -> None:
        decompressor = zstandard.ZstdDecompressor(max_window_size=_MEMORY)
        self._frame = decompressor.decompressobj()
        self._data = b""
        self._at = 0

    @property
    def eof(self) -> bool:
        return self._frame.eof

    @property
    def needs_input(self) -> bool:
        return self._at >= len(self._data)

    @property
    def unused_data(self) -> bytes:
        return self._frame.unused_data + self._data[self._at :]

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        if data:
            self._data, self._at = data, 0
        at = self._at
        self._at = at + self._SLICE
        return self._frame.decompress(self._data[at : self._at])


_KINDS: dict[bytes, Callable[[], _Decompressor]] = {
    b"\x1f\x8b": lambda: igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP),
    b"BZh": bz2.BZ2Decompressor,
    b"\xfd7zXZ\0": lambda: lzma.LZMADecompressor(memlimit=_MEMORY),
}
_ZSTD = (b"\x28\xb5\x2f\xfd", *(b"%c\x2a\x4d\x18" % number for number in range(0x50, 0x60)))


class _Counted:
    """A stream that counts what went through and can be looked into once, at its start."""

    def __init__(self, source: Readable) -> None:
        self._source = source
        self._held = b""
        self.count = 0

    def peek(self) -> bytes:
        while len(self._held) < 8 and (piece := self._source.read(_PIECE)):
            self._held += piece
        return self._held[:8]

    def read(self, size: int, /) -> bytes:
        if self._held:
            piece, self._held = self._held[:size], self._held[size:]
        else:
            piece = self._source.read(size)
        self.count += len(piece)
        return piece


class Sink(Protocol):
    """Where a blob goes: `content.Ingest`."""

    def write(self, data: bytes, /) -> None: ...
    def commit(self) -> Digest: ...


@dataclass(frozen=True, slots=True)
class WrittenLayer:
    """`digest` and `size` of the compressed blob, `diff_id` and `tar_size` of the tar in it."""

    digest: Digest
    diff_id: Digest
    size: int
    tar_size: int


class LayerWriter:
    """Tar bytes in, a gzip blob out: `write` any number of times, then `commit` once.

    Hashing and compressing run in a thread beside the writer; the sink is only ever called from
    the writer's own. The same tar gives the same blob, however it is cut into writes.
    """

    MEDIA_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._hash = hashlib.sha256()
        self._gzip = isal_zlib.compressobj(level=1, wbits=16 + zlib.MAX_WBITS)
        self._held = bytearray()
        self._worker = ThreadPoolExecutor(1, "compress")  # ends with this object at the latest
        self._under_way: deque[Future[bytes]] = deque()
        self._size = 0
        self._tar_size = 0

    def write(self, data: bytes, /) -> int:
        self._held += data
        at = 0
        while len(self._held) - at >= _PIECE:
            self._submit(bytes(memoryview(self._held)[at : at + _PIECE]))
            at += _PIECE
        del self._held[:at]
        return len(data)

    def commit(self) -> WrittenLayer:
        """Write what is left and commit the sink. Raises what its `write` and `commit` do."""
        self._submit(bytes(self._held))
        while self._under_way:
            self._send(self._under_way.popleft().result())
        self._send(self._gzip.flush())
        self._worker.shutdown()
        return WrittenLayer(
            digest=self._sink.commit(),
            diff_id=Digest.from_hex(self._hash.hexdigest()),
            size=self._size,
            tar_size=self._tar_size,
        )

    def _submit(self, piece: bytes) -> None:
        if len(self._under_way) == _AHEAD:
            self._send(self._under_way.popleft().result())
        self._under_way.append(self._worker.submit(self._compress, piece))

    def _compress(self, piece: bytes) -> bytes:
        self._hash.update(piece)
        self._tar_size += len(piece)
        return self._gzip.compress(piece)

    def _send(self, data: bytes) -> None:
        if data:
            self._sink.write(data)
            self._size += len(data)
