"""The first thing a new home shows: a small base image, a sample built on it, a container of it.

All of it goes the ordinary way (uploads, builds, operations); nothing here is special but the
source, which comes from examples/ and from this machine's own busybox.
"""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from engine.models import Build, Container, Namespace
from engine.network.spec import PortBinding
from engine.services import builds, containers, uploads

BASE = "quayside/busybox"
NAME = "hello"
ACTOR = "system"
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
BUSYBOX = Path("/bin/busybox")
PORT = 3080


def sample_base(namespace: Namespace) -> Build:
    """Queue the build of the base image. Raises FileNotFoundError without busybox-static."""
    return _build(namespace, EXAMPLES / "busybox", BASE, {"busybox": BUSYBOX})


def sample_build(namespace: Namespace) -> Build:
    """Queue the build of the sample; its base must be built."""
    return _build(namespace, EXAMPLES / NAME, NAME, {})


def sample_run(namespace: Namespace, host_port: int = PORT) -> Container:
    """Queue the sample's container, published on `host_port` of this machine (0: a free one)."""
    request = containers.ContainerRequest(
        image=NAME,
        name=NAME,
        ports=(PortBinding(80, "tcp", "127.0.0.1", host_port),),
    )
    return containers.container_run(namespace, request, ACTOR)[0]


def _build(namespace: Namespace, folder: Path, tag: str, extra: dict[str, Path]) -> Build:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path in sorted(folder.rglob("*")):
            tar.add(path, arcname=str(path.relative_to(folder)), recursive=False, filter=_plain)
        for name, path in extra.items():
            tar.add(path.resolve(), arcname=name, filter=_plain)
    data = buffer.getvalue()
    upload = uploads.upload_create(namespace, 0, f"{tag}.tar", len(data))
    for offset in range(0, len(data), uploads.MAX_PIECE):
        uploads.upload_append(upload, offset, data[offset : offset + uploads.MAX_PIECE])
    return builds.build_create(
        namespace, actor=ACTOR, tag=tag, upload=uploads.upload_finish(upload)
    )[0]


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Owner and permissions as Docker's CLI sends them, whatever the clone's umask was."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
    return entry
