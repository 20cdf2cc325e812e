"""Running a build on this machine: its context, its log, its cache, and the image's row.

What a build *is* stands in engine.build; this joins it to rows and files. Builds keep their
context (`builds/N/context`) so that "again" needs no second upload; `tidy` drops old ones.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from django.db import close_old_connections, transaction
from django.utils import timezone

from engine import publish
from engine.build import solver
from engine.build.archive import unpack_archive
from engine.build.cache import CacheEntry
from engine.build.ports import BuildEngine, BuildRequest, BuildResult, LayerProgress, LocalImage
from engine.errors import (
    Cancelled,
    ContextError,
    InvalidInput,
    NoSpace,
    NotFound,
    QuaysideError,
)
from engine.events import Kind
from engine.models import Build, BuildCacheEntry, Endpoint, Image, Namespace, Network, Operation
from engine.network.spec import NetworkSpec
from engine.oci.digest import Digest
from engine.oci.image import Descriptor, ImageConfig
from engine.oci.reference import Reference
from engine.services import images, namespaces, operations, uploads
from engine.services.work.containers import network_spec
from engine.services.work.host import host
from engine.services.work.images import fetch

logger = logging.getLogger(__name__)
State = Build.State
# A Dockerfile goes into a row and onto a page, an ignore file into memory.
_MAX_TEXT = 1024 * 1024


def handle(operation: Operation, cancelled: threading.Event) -> dict[str, Any]:
    """Run one build to its end; its row and its log say how it went, whatever happened."""
    build = (
        Build.objects.select_related("namespace", "upload", "again")
        .filter(pk=int(operation.target), namespace=operation.namespace)
        .first()
    )
    if build is None:
        raise NotFound("the build has been removed meanwhile", kind="build")
    folder = folder_of(build)
    folder.mkdir(exist_ok=True)
    with EventFile(folder / "log.jsonl") as log:
        if operation.attempt > 1:
            clear(build)
            log.event({"t": "again", "attempt": operation.attempt})
        _update(build, state=State.RUNNING, started_at=timezone.now())
        try:
            result = _run(build, folder, log, cancelled)
        except QuaysideError as error:
            if isinstance(error, Cancelled) and operations.leaving():
                _update(build, state=State.QUEUED, started_at=None)
                raise
            if error.context.pop("snapshot", None):
                # The file system a step failed in: nobody can look into it, and it may be what
                # fills the disk.
                clear(build)
            state = State.CANCELLED if isinstance(error, Cancelled) else State.FAILED
            _end(build, log, state, error=error.as_dict())
            raise
        except BaseException as error:
            ours = {
                "id": "engine",
                "message": f"{type(error).__name__}: {error}",
                "hint": "the engine's log has the details",
                "context": {},
            }
            _end(build, log, State.FAILED, error=ours)
            raise
    return result


def build_id(build: Build) -> str:
    """Names everything a build makes on this machine."""
    return str(build.pk)


def folder_of(build: Build) -> Path:
    return host().config.builds_dir / str(build.pk)


def _run(build: Build, folder: Path, log: EventFile, cancelled: threading.Event) -> dict[str, Any]:
    began = timezone.now()
    context = _context(build, folder)
    dockerfile, ignore = _texts(build, context)
    Build.objects.filter(pk=build.pk).update(dockerfile=dockerfile)
    request = BuildRequest(
        build_id=build_id(build),
        context=context,
        dockerfile=dockerfile,
        dockerfile_name=build.dockerfile_path,
        ignore=ignore,
        args=build.args,
        target=build.target,
        no_cache=build.no_cache,
        pull=build.pull,
        position=_position(build),
    )
    result = solver.build(request, _engine(build), log, cancelled)
    image = _record(build, result)
    seconds = (timezone.now() - began).total_seconds()
    _end(
        build,
        log,
        State.DONE,
        image=image,
        steps=[
            {
                "n": step.n,
                "text": step.text,
                "line": step.line,
                "end": step.end_line,
                "state": step.state,
                "seconds": round(step.seconds, 3),
                "reason": step.reason,
            }
            for step in result.steps
        ],
        done={"t": "done", "image": image.digest, "size": image.size, "ms": round(seconds * 1000)},
    )
    return {"image": image.digest}


def _position(build: Build) -> str:
    """What a build goes on from: the last of the same name, or of the same first build."""
    if build.tag:
        return build.tag
    *_, first = _lineage(build)
    return f"#{first.number}"


def _lineage(build: Build) -> Iterator[Build]:
    """The build and those it goes back to, in its namespace. Rows that web made into a ring end
    where it closes."""
    seen: set[int] = set()
    source: Build | None = build
    while source and source.namespace_id == build.namespace_id and source.pk not in seen:
        seen.add(source.pk)
        yield source
        source = source.again


def _update(build: Build, **values: Any) -> None:
    with transaction.atomic():
        Build.objects.filter(pk=build.pk).update(**values)
        publish.changed(build.namespace_id, Kind.BUILD, build.pk)


def _end(
    build: Build,
    log: EventFile,
    state: Build.State,
    *,
    done: Mapping[str, Any] | None = None,
    **values: Any,
) -> None:
    """The row first, then the log's last line: whoever reads that line finds the row as it says."""
    _update(build, state=state, finished_at=timezone.now(), **values)
    if done is not None:
        log.event(done)
    elif state == State.CANCELLED:
        log.event({"t": "cancelled"})
    else:
        log.event({"t": "failed", "error": values["error"]})


class EventFile:
    """The build's log: one JSON object a line, appended; readers follow it by offset."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)
        self._left = b""

    def event(self, event: Mapping[str, Any]) -> None:
        """Raises NoSpace; what could not be written then goes before the next event."""
        line = json.dumps(event, ensure_ascii=False, separators=(",", ":")) + "\n"
        self._left += line.encode("utf-8", "replace")
        try:
            while self._left:
                self._left = self._left[self._file.write(self._left) :]
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise NoSpace(
                f"no space left for the build's log {self._file.name}",
                hint="free some disk space and try again",
            ) from error

    def __enter__(self) -> EventFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _context(build: Build, folder: Path) -> Path:
    """The folder that is built: unpacked from the upload, or the one an earlier build kept.

    Unpacked aside and renamed, so that one that is there is whole. Raises ContextError."""
    if build.upload is None and build.again is not None:
        for source in _lineage(build):
            if (folder_of(source) / "context").is_dir():
                return folder_of(source) / "context"
        raise ContextError(
            f"the source of build #{build.again.number} is no longer kept",
            hint="choose the folder again",
            field="upload",
        )
    context = folder / "context"
    if context.is_dir():
        return context
    aside = folder / "context.part"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        if build.upload is not None:
            _unpack(uploads.upload_path(build.upload), aside)
        aside.rename(context)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    if build.upload is not None:
        uploads.upload_path(build.upload).unlink(missing_ok=True)
    return context


def _unpack(archive: Path, target: Path) -> None:
    """The uploads' folder is web's: a link put there must not make root read something else, nor
    a fifo make it wait."""
    try:
        descriptor = os.open(archive, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ContextError(
            f"the upload cannot be read: {error.strerror}", hint="upload it again", field="upload"
        ) from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ContextError("the upload is no file", hint="upload it again", field="upload")
        unpack_archive(Path(f"/proc/self/fd/{descriptor}"), target)
    finally:
        os.close(descriptor)


def _texts(build: Build, context: Path) -> tuple[str, str]:
    """(Dockerfile, .dockerignore); NAME.dockerignore beside the Dockerfile wins, as BuildKit has
    it. Raises NotFound with the paths that were looked at, InvalidInput for one that is no text."""
    path = _inside(context, build.dockerfile_path)
    if build.inline:
        dockerfile = build.dockerfile
    elif path is None:
        raise NotFound(
            f"no {build.dockerfile_path} in what was uploaded",
            hint="choose the folder that has it, or say where it lies in it",
            field="dockerfile_path",
            path=build.dockerfile_path,
        )
    else:
        dockerfile = _text(path)
    for name in (f"{build.dockerfile_path}.dockerignore", ".dockerignore"):
        ignore = _inside(context, name)
        if ignore is not None:
            return dockerfile, _text(ignore)
    return dockerfile, ""


def _inside(context: Path, name: str) -> Path | None:
    """A regular file of the context, or None; links do not lead out of it."""
    path = Path(os.path.realpath(context / name))
    if not path.is_relative_to(os.path.realpath(context)):
        raise InvalidInput(f"{name} leads out of the context", field="dockerfile_path")
    return path if path.is_file() else None


def _text(path: Path) -> str:
    with path.open("rb") as file:
        data = file.read(_MAX_TEXT + 1)
    if len(data) > _MAX_TEXT:
        raise InvalidInput(
            f"{path.name} is larger than {_MAX_TEXT >> 20} MiB",
            hint="is it the file you meant?",
            field="dockerfile_path",
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"{path.name} is not UTF-8 text", hint="save it as UTF-8", field="dockerfile_path"
        ) from error
    if "\0" in text:  # which PostgreSQL would not keep either
        raise InvalidInput(f"{path.name} is not text", field="dockerfile_path")
    return text


def _engine(build: Build) -> BuildEngine:
    parts = host()
    return BuildEngine(
        config=parts.config,
        content=parts.content,
        snapshots=parts.snapshots,
        runtime=parts.runtime,
        images=RowImages(build.namespace),
        cache=RowCache(build.namespace),
        networks=parts.network,
        network=network_spec(namespaces.network_default(build.namespace)),
        addresses=RowAddresses(),
    )


def _record(build: Build, result: BuildResult) -> Image:
    config = json.loads(host().content.read(result.config.digest))
    return images.image_record(
        build.namespace,
        digest=str(result.config.digest),
        manifest_digest=str(result.manifest.digest),
        config=config,
        layers=[
            {
                "digest": str(layer.digest),
                "diff_id": str(diff_id),
                "size": layer.size,
                "media_type": layer.media_type,
            }
            for layer, diff_id in zip(
                result.layers, result.image_config.rootfs.diff_ids, strict=True
            )
        ],
        names=(Reference.parse(build.tag),) if build.tag else (),
    )


class RowImages:
    """engine.build's ImageSource over rows, fetching from a registry what is not here."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace

    def resolve(
        self,
        reference: str,
        pull: bool,
        progress: Callable[[LayerProgress], None],
        cancelled: Callable[[], bool],
    ) -> LocalImage:
        try:
            image = images.find_image(self._namespace, reference)
        except NotFound:
            pull = True
        if pull:
            image = fetch(
                self._namespace,
                Reference.parse(reference),
                lambda p: progress(LayerProgress(str(p.digest), p.current, p.total, p.kind)),
                cancelled,
            )
        content = host().content
        config = Digest.parse(image.digest)
        return LocalImage(
            config=Descriptor(
                media_type="application/vnd.oci.image.config.v1+json",
                digest=config,
                size=content.info(config).size,
            ),
            image_config=ImageConfig.from_json(content.read(config)),
            layers=tuple(
                Descriptor(
                    media_type=layer["media_type"],
                    digest=Digest.parse(layer["digest"]),
                    size=layer["size"],
                )
                for layer in image.layers
            ),
        )


class RowCache:
    """engine.build's CacheStore over rows."""

    def __init__(self, namespace: Namespace) -> None:
        self._rows = BuildCacheEntry.objects.filter(namespace=namespace)
        self._namespace = namespace

    def get(self, key: str) -> CacheEntry | None:
        row = self._rows.filter(key=key).first()
        return CacheEntry.from_json(row.entry) if row else None

    def put(self, entry: CacheEntry) -> None:
        BuildCacheEntry.objects.update_or_create(
            namespace=self._namespace,
            key=entry.key,
            defaults={"position": entry.position, "entry": entry.to_json()},
        )

    def last(self, position: str) -> CacheEntry | None:
        row = self._rows.filter(position=position).order_by("-used_at").first()
        return CacheEntry.from_json(row.entry) if row else None


class RowAddresses:
    """engine.build's AddressLease: addresses from the table that containers' come from."""

    def acquire(self, network: NetworkSpec, owner: str) -> IPv4Address:
        row = Network.objects.get(pk=int(network.id.removeprefix("n")))
        return IPv4Address(namespaces.address_take(row, owner=owner).address)

    def release(self, network: NetworkSpec, owner: str) -> None:
        Endpoint.objects.filter(network_id=int(network.id.removeprefix("n")), owner=owner).delete()


def clear(build: Build) -> None:
    """Take away whatever a build that does not run has on this machine but its source and log."""
    solver.clean_up(build_id(build), _engine(build))


def forget_lost(closed: Callable[[Build], bool]) -> list[str]:
    """Builds that wait or run though their operation has ended: cleaned up and marked failed."""
    found: list[str] = []
    for build in Build.objects.open().select_related("namespace"):
        if not closed(build):
            continue
        build.refresh_from_db(fields=["state"])
        if not build.is_open:
            continue  # it ended between the two looks, its row first
        folder_of(build).mkdir(exist_ok=True)
        clear(build)
        error = {
            "id": "engine",
            "message": "the worker was lost while it built",
            "hint": "build it again: finished steps are cached",
            "context": {},
        }
        with EventFile(folder_of(build) / "log.jsonl") as log:
            _end(build, log, State.FAILED, error=error)
        found.append(f"build #{build.number} had lost its worker")
    close_old_connections()
    return found
