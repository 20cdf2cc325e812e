"""Running a build on this machine: its log, its cache, and the image's row.

What a build *is* stands in engine.build, what it is built from in sources; this joins both to rows.
Whatever a build stands on is leased until its image's row is there.
"""

from __future__ import annotations

import errno
import json
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from django.db import close_old_connections, transaction
from django.db.models import Q
from django.utils import timezone

from engine import publish
from engine.build import solver
from engine.build.packed import PackedContext
from engine.build.ports import BuildEngine, BuildRequest, BuildResult, RunOptions
from engine.errors import (
    Cancelled,
    InvalidInput,
    NoSpace,
    NotFound,
    QuaysideError,
)
from engine.events import Kind
from engine.images.leases import Lease, Leases
from engine.models import Build, Image, Network, Operation, Tag
from engine.network.spec import NetworkSpec
from engine.oci.reference import Reference
from engine.services import images, namespaces, operations
from engine.services.build_options import BuildOptions
from engine.services.work.build_rows import RowAddresses, RowCache, RowImages
from engine.services.work.host import host
from engine.services.work.image_rows import layer_rows
from engine.services.work.networks import network_spec
from engine.services.work.sources import context_of, folder_of, lineage, texts_of

__all__ = ["clear", "folder_of", "forget_lost", "handle"]

logger = logging.getLogger(__name__)
State = Build.State


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
            result = _run(build, operation.args, folder, log, cancelled)
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


def _run(
    build: Build,
    args: Mapping[str, Any],
    folder: Path,
    log: EventFile,
    cancelled: threading.Event,
) -> dict[str, Any]:
    context = context_of(build, folder)
    try:
        return _built(build, args, context, log, cancelled)
    finally:
        if isinstance(context, PackedContext):
            context.close()


def _built(
    build: Build,
    args: Mapping[str, Any],
    context: Path | PackedContext,
    log: EventFile,
    cancelled: threading.Event,
) -> dict[str, Any]:
    began = timezone.now()
    options = BuildOptions.from_json(args.get("options", {}))
    dockerfile, ignore = texts_of(build, context)
    if dockerfile != build.dockerfile:
        Build.objects.filter(pk=build.pk).update(dockerfile=dockerfile)
    request = BuildRequest(
        build_id=build_id(build),
        context=context,
        dockerfile=dockerfile,
        dockerfile_name=build.dockerfile_path,
        ignore=ignore,
        args=build.args,
        target=build.target,
        no_cache=build.no_cache or not _cache_allowed(build, options),
        pull=build.pull,
        labels=options.labels,
        position=_position(build),
        run=RunOptions(
            limits=options.limits,
            ulimits=options.ulimits,
            shm_bytes=options.shm_bytes,
            hosts=options.hosts,
            connected=options.network != "none",
        ),
    )
    with Leases.of(host().config).take() as lease:
        result = solver.build(request, _engine(build, lease, options), log, cancelled)
        image = _record(build, result, args.get("tags", ()))
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
    *_, first = lineage(build)
    return f"#{first.number}"


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


def _cache_allowed(build: Build, options: BuildOptions) -> bool:
    """With --cache-from the cache is that of these images: none of them here, no cache."""
    for name in options.cache_from:
        with suppress(NotFound, InvalidInput):
            images.find_image(build.namespace, name)
            return True
    return not options.cache_from


def _network(build: Build, options: BuildOptions) -> Network:
    """What RUN steps are on. Raises NotFound."""
    if options.network in ("", "none"):
        return namespaces.network_default(build.namespace)
    named = Q(name=options.network) | Q(uid=options.network)
    found = Network.objects.filter(named, namespace=build.namespace).first()
    if found is None:
        raise NotFound(f"network {options.network} not found", kind="network", name=options.network)
    return found


def _engine(
    build: Build, lease: Lease | None = None, options: BuildOptions | None = None
) -> BuildEngine:
    """Without a lease it is good for cleaning up."""
    parts = host()
    asked = options or BuildOptions()

    @cache
    def network() -> NetworkSpec:
        return network_spec(_network(build, asked))

    if asked.network:
        network()  # one that is not there is told before anything is built
    return BuildEngine(
        config=parts.config,
        content=parts.content,
        snapshots=parts.snapshots,
        runtime=parts.runtime,
        images=RowImages(build.namespace, lease, asked.auth),
        cache=RowCache(build.namespace, lease),
        networks=parts.network,
        network=network,
        addresses=RowAddresses(),
    )


def _record(build: Build, result: BuildResult, more_tags: Sequence[str]) -> Image:
    """The row; of an image that was there with these names, as of a build that was cached as a
    whole, it is found and nothing is written but the event."""
    names = tuple(Reference.parse(name) for name in (build.tag, *more_tags) if name)
    with transaction.atomic():
        image = _found(build, str(result.config.digest), names)
        if image is None:
            config = json.loads(host().content.read(result.config.digest))
            # The row's alone: what was built must not depend on where from.
            parent = {"parent": str(result.base)} if result.base else {}
            image = images.image_record(
                build.namespace,
                digest=str(result.config.digest),
                manifest_digest=str(result.manifest.digest),
                config={**config, **parent},
                layers=layer_rows(result.layers, result.image_config.rootfs.diff_ids),
                names=names,
            )
        for name in names:
            images.image_event(image, "tag", name.familiar())
    return image


def _found(build: Build, digest: str, names: Sequence[Reference]) -> Image | None:
    tags = list(
        Tag.objects.select_related("image").filter(namespace=build.namespace, image__digest=digest)
    )
    here = {(tag.repository, tag.tag) for tag in tags}
    wanted = {(name.repository, name.tag or "latest") for name in names}
    return tags[0].image if wanted and wanted <= here else None


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
