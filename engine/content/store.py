"""The content store: `blobs/sha256/HEX`, immutable, named by what they contain.

It knows nothing of manifests, layers or who still needs a blob: `images/` reads them, and prune
decides what `delete` gets. Several processes may use one root at once.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from engine.content.ingest import Ingest, expire
from engine.errors import ContentCorrupt, InvalidInput, NotFound
from engine.oci.digest import Digest

READ_LIMIT = 8 << 20
"""A manifest, index or image config above 8 MiB is none (registries stop at 4 MiB)."""

_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Info:
    """`size` in bytes."""

    digest: Digest
    size: int


class ContentStore:
    """Blobs below `root`; the folders are made on construction, readable by their owner only."""

    def __init__(self, root: Path) -> None:
        self._blobs = root / "blobs" / "sha256"
        self._ingests = root / "ingests"
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._blobs.mkdir(parents=True, exist_ok=True)
        self._ingests.mkdir(exist_ok=True)

    def has(self, digest: Digest) -> bool:
        return self.path(digest).is_file()

    def info(self, digest: Digest) -> Info:
        """Raises NotFound."""
        try:
            return Info(digest, self.path(digest).stat().st_size)
        except FileNotFoundError as error:
            raise _missing(digest) from error

    def path(self, digest: Digest) -> Path:
        """Where the blob is or would be; callers MUST NOT write there."""
        return self._blobs / digest.hex

    def open(self, digest: Digest) -> BinaryIO:
        """The blob from its start, unbuffered. Not verified here: that was done when it came in,
        and unpacking checks the diff_id. Raises NotFound."""
        try:
            return self.path(digest).open("rb", buffering=0)
        except FileNotFoundError as error:
            raise _missing(digest) from error

    def read(self, digest: Digest, limit: int = READ_LIMIT) -> bytes:
        """The whole blob, verified again. Raises NotFound, ContentCorrupt, and InvalidInput when
        it is larger than `limit` bytes."""
        with self.open(digest) as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise InvalidInput(f"blob {digest} is larger than {limit} bytes", digest=digest)
        if hashlib.sha256(data).hexdigest() != digest.hex:
            raise ContentCorrupt(
                f"blob {digest} is damaged on disk",
                hint="remove the image and pull or build it again",
                digest=digest,
            )
        return data

    def put(self, data: bytes) -> Digest:
        """Store a small blob; idempotent. Raises NoSpace."""
        digest = Digest.of(data)
        if not self.has(digest):
            with self.ingest(f"put-{digest}") as ingest:
                ingest.write(data)
                ingest.commit()
        return digest

    def ingest(
        self,
        ref: str,
        expected: Digest | None = None,
        size: int | None = None,
        *,
        wait: bool = True,
    ) -> Ingest:
        """Begin or resume writing a blob; `ref` names the attempt (any text, the layer's digest
        for a pull). One at a time a ref: a second one waits, or with `wait=False` gets Conflict.
        """
        path = self._ingests / hashlib.sha256(ref.encode()).hexdigest()
        return Ingest(path, self._blobs, ref=ref, expected=expected, size=size, wait=wait)

    def delete(self, digest: Digest) -> bool:
        """Remove the blob; False when there was none. Open readers keep their file."""
        try:
            self.path(digest).unlink()
        except FileNotFoundError:
            return False
        return True

    def walk(self) -> Iterator[Info]:
        """Every blob, in no order; what appears or goes meanwhile may or may not be among them."""
        for path in self._blobs.iterdir():
            if _HEX.fullmatch(path.name):
                try:
                    size = path.stat().st_size
                except FileNotFoundError:
                    continue  # deleted since the folder was read
                yield Info(Digest.from_hex(path.name), size)

    def expire_ingests(self, max_age_seconds: float) -> int:
        """Remove ingests nobody writes and nobody touched for that long; how many."""
        before = time.time() - max_age_seconds
        return sum(expire(path, before) for path in list(self._ingests.iterdir()))


def _missing(digest: Digest) -> NotFound:
    return NotFound(f"blob {digest} is not in the content store", digest=digest)
