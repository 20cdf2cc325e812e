"""Tar archives made member by member, for tests that need an odd or an evil one."""

from __future__ import annotations

import io
import tarfile

Member = tarfile.TarInfo | tuple[tarfile.TarInfo, bytes]


def member(name: str, kind: bytes = tarfile.REGTYPE, **fields: object) -> tarfile.TarInfo:
    """Root's, mode 0644 (0755 a folder) and of 1970 unless `fields` say otherwise."""
    info = tarfile.TarInfo(name)
    info.type = kind
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    for key, value in fields.items():
        setattr(info, key, value)
    return info


def folder(name: str, **fields: object) -> tarfile.TarInfo:
    return member(name, tarfile.DIRTYPE, **fields)


def symlink(name: str, target: str) -> tarfile.TarInfo:
    return member(name, tarfile.SYMTYPE, linkname=target)


def hardlink(name: str, target: str) -> tarfile.TarInfo:
    return member(name, tarfile.LNKTYPE, linkname=target)


def make_tar(*members: Member, format: int = tarfile.PAX_FORMAT) -> io.BytesIO:
    """An uncompressed archive, its stream at the start."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as archive:
        for entry in members:
            info, data = entry if isinstance(entry, tuple) else (entry, b"")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    out.seek(0)
    return out
