"""Writing tar members: ustar, with a PAX header where ustar cannot say it (pax, "pax Interchange").

The same arguments give the same bytes: no user names, no process ids, no times of its own. Which
files go in, and in what order, is `diff`'s.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence

from engine.snapshots.tar_reader import FILE, checksum

END = bytes(1024)

_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s8s32x32x8s8s155x12x")
_USTAR = b"ustar\x0000"
_SPACES = b" " * 8
_ID_LIMIT, _SIZE_LIMIT, _TIME_LIMIT = 0o7777777, 0o77777777777, 0o77777777777


def member(
    name: bytes,
    kind: bytes,
    *,
    mode: int = 0,
    uid: int = 0,
    gid: int = 0,
    size: int = 0,
    mtime_ns: int = 0,
    link: bytes = b"",
    device: tuple[int, int] = (0, 0),
    xattrs: Mapping[str, bytes] | None = None,
    records: Iterable[tuple[bytes, bytes]] = (),
) -> bytes:
    """The header blocks of one member; `size` bytes of data and `padding(size)` must follow.

    `records` are further PAX records. Names are taken as they are: a folder's ends with `/`.
    """
    extended = list(records)
    if len(name) > 100:
        extended.append((b"path", name))
    if len(link) > 100:
        extended.append((b"linkpath", link))
    if size > _SIZE_LIMIT:
        extended.append((b"size", b"%d" % size))
    if uid > _ID_LIMIT:
        extended.append((b"uid", b"%d" % uid))
    if gid > _ID_LIMIT:
        extended.append((b"gid", b"%d" % gid))
    seconds, fraction = divmod(mtime_ns, 1_000_000_000)
    if fraction or not 0 <= seconds <= _TIME_LIMIT:
        extended.append((b"mtime", _decimal(mtime_ns)))
        seconds = seconds if 0 <= seconds <= _TIME_LIMIT else 0
    if xattrs:
        extended += [(b"SCHILY.xattr." + key.encode(), xattrs[key]) for key in sorted(xattrs)]
    header = _block(
        name[:100],
        kind,
        mode,
        uid if uid <= _ID_LIMIT else 0,
        gid if gid <= _ID_LIMIT else 0,
        size if size <= _SIZE_LIMIT else 0,
        seconds,
        link[:100],
        device,
    )
    if not extended:
        return header
    body = b"".join([_record(key, value) for key, value in extended])
    title = b"PaxHeaders.0/" + name.rstrip(b"/").rpartition(b"/")[2][:80]
    pax = _block(title, b"x", 0o644, 0, 0, len(body), 0, b"", (0, 0))
    return b"%b%b%b%b" % (pax, body, padding(len(body)), header)


def sparse_member(
    name: bytes,
    runs: Sequence[tuple[int, int]],
    size: int,
    *,
    mode: int,
    uid: int,
    gid: int,
    mtime_ns: int,
    xattrs: Mapping[str, bytes],
) -> bytes:
    """Headers and map of a sparse file in GNU's PAX format 1.0, which GNU tar, Go's archive/tar
    (so Docker and containerd) and Python read; the runs' bytes and their padding must follow."""
    if sum(runs[-1] if runs else (0, 0)) < size:
        runs = [*runs, (size, 0)]  # or GNU tar would end the file where its last bytes end
    numbers = [len(runs), *(number for run in runs for number in run)]
    table = b"".join([b"%d\n" % number for number in numbers])
    table += padding(len(table))
    folder, slash, base = name.rpartition(b"/")
    header = member(
        folder + slash + b"GNUSparseFile.0/" + base,
        FILE,
        mode=mode,
        uid=uid,
        gid=gid,
        size=len(table) + sum(length for _, length in runs),
        mtime_ns=mtime_ns,
        xattrs=xattrs,
        records=(
            (b"GNU.sparse.major", b"1"),
            (b"GNU.sparse.minor", b"0"),
            (b"GNU.sparse.name", name),
            (b"GNU.sparse.realsize", b"%d" % size),
        ),
    )
    return header + table


def padding(size: int) -> bytes:
    """The zeros that fill `size` bytes up to whole blocks of 512."""
    return bytes(-size % 512)


def _block(
    name: bytes,
    kind: bytes,
    mode: int,
    uid: int,
    gid: int,
    size: int,
    seconds: int,
    link: bytes,
    device: tuple[int, int],
) -> bytes:
    block = _HEADER.pack(
        name,
        b"%07o\0" % mode,
        b"%07o\0" % uid,
        b"%07o\0" % gid,
        b"%011o\0" % size,
        b"%011o\0" % seconds,
        _SPACES,
        kind,
        link,
        _USTAR,
        b"%07o\0" % device[0],
        b"%07o\0" % device[1],
    )
    return b"%b%06o\0 %b" % (block[:148], checksum(block), block[156:])


def _record(key: bytes, value: bytes) -> bytes:
    """`LENGTH KEY=VALUE\\n`, where LENGTH counts its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    if len(str(length)) > len(str(rest)):
        length += 1
    return b"%d %b=%b\n" % (length, key, value)


def _decimal(nanoseconds: int) -> bytes:
    whole, fraction = divmod(abs(nanoseconds), 1_000_000_000)
    text = b"%d.%09d" % (whole, fraction)
    return b"-" * (nanoseconds < 0) + text.rstrip(b"0").rstrip(b".")
