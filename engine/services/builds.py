"""Builds as people ask for them: new, again, cancel."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from django.db import transaction
from django.db.models import Max
from django.utils import timezone

from engine import publish
from engine.build.plan import make_plan
from engine.dockerfile import parse
from engine.errors import InvalidInput, WrongState
from engine.events import Kind
from engine.models import Build, Namespace, Operation, Upload
from engine.oci.reference import Reference
from engine.services import namespaces, operations

_ARG = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def build_create(
    namespace: Namespace,
    *,
    actor: str,
    tag: str = "",
    more_tags: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
    upload: Upload | None = None,
    dockerfile: str = "",
    found: str = "",
    dockerfile_path: str = "Dockerfile",
    args: dict[str, str] | None = None,
    target: str = "",
    no_cache: bool = False,
    pull: bool = False,
    again: Build | None = None,
) -> tuple[Build, Operation]:
    """A numbered build and its operation. A Dockerfile given as text is parsed and planned here and
    now, so that a mistake shows at its line before anything is queued.

    `found` is the text as the caller has seen it in the upload; the worker reads it again.
    `more_tags` are further names of the image; `options` (BuildOptions.to_json) is what only the
    Docker API asks for. Both go with the operation.

    Raises DockerfileError, Unsupported, NotFound (the target), InvalidReference, InvalidInput
    (with `field`)."""
    for name in filter(None, (tag, *more_tags)):
        if Reference.parse(name).digest is not None:
            raise InvalidInput("a name for an image cannot carry a digest", field="tag")
    args_of_operation: dict[str, Any] = {}
    if more_tags:
        args_of_operation["tags"] = list(more_tags)
    if options:
        args_of_operation["options"] = dict(options)
    if upload is None and not dockerfile.strip() and again is None:
        raise InvalidInput(
            "nothing to build",
            hint="write a Dockerfile, or choose a folder that has one",
            field="dockerfile",
        )
    if upload is not None and not upload.complete:
        raise InvalidInput("the upload is not complete yet", hint="wait for it", field="upload")
    for key in args or {}:
        if not _ARG.fullmatch(key):
            raise InvalidInput(
                f"not a build argument's name: {key}", hint="letters, digits and _", field="args"
            )
    if dockerfile.strip():
        dockerfile_check(dockerfile, dockerfile_path, args or {}, target)
    with transaction.atomic():
        namespaces.lock(namespace)
        last = Build.objects.for_namespace(namespace).aggregate(last=Max("number"))["last"]
        build = Build.objects.create(
            namespace=namespace,
            node=namespaces.node_local(),
            number=(last or 0) + 1,
            tag=tag,
            upload=upload,
            again=again,
            dockerfile=dockerfile or found,
            inline=bool(dockerfile.strip()),
            dockerfile_path=dockerfile_path,
            args=args or {},
            target=target,
            no_cache=no_cache,
            pull=pull,
            actor=actor,
        )
        operation = operations.submit(
            Operation.Kind.BUILD_RUN,
            namespace,
            actor=actor,
            target=str(build.pk),
            args=args_of_operation,
        )
        publish.changed(namespace.pk, Kind.BUILD, build.pk)
    return build, operation


def dockerfile_check(text: str, path: str, args: dict[str, str], target: str) -> None:
    """Raises DockerfileError, Unsupported (both with the lines) and NotFound (the target)."""
    make_plan(parse(text, path), args, target)


def build_again(
    build: Build,
    actor: str,
    *,
    no_cache: bool = False,
    upload: Upload | None = None,
    dockerfile: str | None = None,
) -> tuple[Build, Operation]:
    """The same build once more: from a new upload, else from the source the first one kept.

    `dockerfile` None keeps what was given as text then, if any; "" takes the one in the source."""
    kept = build.dockerfile if build.inline else ""
    first = (
        Operation.objects.filter(kind=Operation.Kind.BUILD_RUN, target=str(build.pk))
        .order_by("-pk")
        .first()
    )
    asked = first.args if first else {}
    options: dict[str, Any] = {
        "tag": build.tag,
        "more_tags": asked.get("tags", ()),
        "options": asked.get("options"),
        "dockerfile_path": build.dockerfile_path,
        "args": build.args,
        "target": build.target,
        "pull": build.pull,
    }
    return build_create(
        build.namespace,
        actor=actor,
        upload=upload,
        again=build if upload is None else None,
        dockerfile=kept if dockerfile is None else dockerfile,
        no_cache=no_cache,
        **options,
    )


def build_cancel(build: Build, actor: str) -> None:
    """Its running step is killed and nothing stays mounted. Raises WrongState once it has ended."""
    operation = (
        Operation.objects.open().filter(kind=Operation.Kind.BUILD_RUN, target=str(build.pk)).first()
    )
    if operation is None:
        raise WrongState(f"build #{build.number} has ended already", number=build.number)
    with transaction.atomic():
        if operations.cancel(operation):
            Build.objects.filter(pk=build.pk).update(
                state=Build.State.CANCELLED, finished_at=timezone.now()
            )
            publish.changed(build.namespace_id, Kind.BUILD, build.pk)
