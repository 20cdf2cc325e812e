"""Images as one archive: an OCI layout that is also docker's own format, as Docker 25 and later
writes it, so that every `docker load`, skopeo and podman reads it.

    oci-layout  index.json  blobs/sha256/…        the very blobs of the content store
    manifest.json  repositories                   Docker's own names for the same

Nothing is compressed or hashed again: the archive is a list of pieces, of bytes and of files to be
sent as they are, whose length is known beforehand.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.content import ContentStore
from engine.oci import media_types
from engine.oci.digest import Digest
from engine.oci.fields import JSON, canonical
from engine.oci.image import Descriptor, ImageIndex, Manifest
from engine.oci.reference import Reference
from engine.snapshots.tar_reader import FILE, FOLDER
from engine.snapshots.tar_writer import END, member, padding

_BLOBS = "blobs/sha256/"


@dataclass(frozen=True, slots=True)
class Saved:
    """An image and the names it goes under, none for one saved by its id."""

    manifest: Digest
    config: Digest
    names: tuple[Reference, ...] = ()


@dataclass(frozen=True, slots=True)
class FilePiece:
    """`size` bytes of the file, from its start."""

    path: Path
    size: int


Piece = bytes | FilePiece


def length(pieces: Iterable[Piece]) -> int:
    """Bytes of them all."""
    return sum(len(p) if isinstance(p, bytes) else p.size for p in pieces)


def save(content: ContentStore, images: Sequence[Saved]) -> list[Piece]:
    """The whole archive; each blob is in it once. Raises NotFound where a blob is missing."""
    return list(_coalesced(_Writer(content).pieces(images)))


class _Writer:
    def __init__(self, content: ContentStore) -> None:
        self._content = content
        self._done: set[Digest] = set()

    def pieces(self, images: Sequence[Saved]) -> Iterator[Piece]:
        yield _folder("blobs/")
        yield _folder(_BLOBS)
        entries: list[JSON] = []
        tops: list[Descriptor] = []
        repositories: dict[str, JSON] = {}
        for image in images:
            body = self._content.read(image.manifest)
            manifest = Manifest.from_json(body)
            for layer in manifest.layers:
                yield from self._blob(layer.digest)
            yield from self._blob(image.config)
            yield from self._blob(image.manifest)
            names = [name.familiar() for name in image.names]
            entries.append(
                {
                    "Config": _path(image.config),
                    "RepoTags": list(names) or None,
                    "Layers": [_path(layer.digest) for layer in manifest.layers],
                }
            )
            top = Descriptor(manifest.media_type, image.manifest, len(body))
            tops += [_named(top, name) for name in image.names] or [top]
            for name in image.names:
                tags = repositories.setdefault(name.familiar_name(), {})
                if isinstance(tags, dict) and manifest.layers:
                    tags[str(name.tag)] = manifest.layers[-1].digest.hex
        index = ImageIndex(tuple(tops), media_type=media_types.OCI_INDEX)
        yield from _document("index.json", index.to_json())
        yield from _document("manifest.json", _array(entries))
        yield from _document("oci-layout", canonical({"imageLayoutVersion": "1.0.0"}))
        if repositories:
            yield from _document("repositories", canonical(repositories))
        yield END

    def _blob(self, digest: Digest) -> Iterator[Piece]:
        if digest in self._done:
            return
        self._done.add(digest)
        size = self._content.info(digest).size
        yield member(_path(digest).encode(), FILE, mode=0o644, size=size)
        yield FilePiece(self._content.path(digest), size)
        yield padding(size)


def _path(digest: Digest) -> str:
    return _BLOBS + digest.hex


def _folder(name: str) -> bytes:
    return member(name.encode(), FOLDER, mode=0o755)


def _document(name: str, body: bytes) -> Iterator[Piece]:
    yield member(name.encode(), FILE, mode=0o644, size=len(body))
    yield body + padding(len(body))


def _array(values: Sequence[JSON]) -> bytes:
    return b"[" + b",".join(canonical(v) for v in values if isinstance(v, dict)) + b"]"


def _named(descriptor: Descriptor, name: Reference) -> Descriptor:
    annotations = {
        "io.containerd.image.name": name.canonical(),
        "org.opencontainers.image.ref.name": str(name.tag),
    }
    return Descriptor(
        descriptor.media_type, descriptor.digest, descriptor.size, annotations=annotations
    )


def _coalesced(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Neighbouring bytes as one piece."""
    held: list[bytes] = []
    for piece in pieces:
        if isinstance(piece, bytes):
            held.append(piece)
            continue
        yield b"".join(held)
        held.clear()
        yield piece
    yield b"".join(held)
