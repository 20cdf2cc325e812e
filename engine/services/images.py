"""Images as people name them: find, pull, tag, untag, remove, and recording what was made."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from django.db import transaction
from django.utils import timezone

from engine import publish
from engine.errors import Conflict, InvalidInput, NotFound
from engine.events import Kind
from engine.models import Image, Namespace, Operation, Tag
from engine.oci.reference import Reference
from engine.services import namespaces, operations

_ID = re.compile(r"(sha256:)?[0-9a-f]{3,64}")


def find_image(namespace: Namespace, name_or_id: str) -> Image:
    """By name (node, node:20, host:5000/a/b), by id or the beginning of one (3 digits at least).

    A name wins over an id, as with Docker. Raises NotFound, InvalidInput."""
    text = name_or_id.strip()
    images = Image.objects.for_namespace(namespace)
    if not re.fullmatch(r"(sha256:)?[0-9a-f]{64}", text):
        reference = Reference.parse(text)
        if reference.digest is not None:
            found = images.filter(
                tags__repository=reference.repository, manifest_digest=str(reference.digest)
            ).first()
        else:
            found = images.filter(
                tags__repository=reference.repository, tags__tag=reference.tag
            ).first()
        if found:
            return found
    if _ID.fullmatch(text):
        by_id = list(images.filter(digest__startswith=f"sha256:{text.removeprefix('sha256:')}")[:2])
        if len(by_id) == 1:
            return by_id[0]
        if by_id:
            raise InvalidInput(
                f"several images begin with {text}", hint="give more of the id", field="image"
            )
    raise NotFound(
        f"no such image here: {text}",
        hint="pull it, or build it",
        kind="image",
        name=text,
        field="image",
    )


def image_pull(namespace: Namespace, name: str, actor: str) -> Operation:
    """Fetch from the registry the name says. Two pulls of one name at once are one operation.

    Raises InvalidReference."""
    reference = Reference.parse(name)
    with transaction.atomic():
        namespaces.lock(namespace)
        target = reference.canonical()
        same = Operation.objects.filter(
            namespace=namespace, kind=Operation.Kind.IMAGE_PULL, args__reference=target
        ).filter(state__in=[Operation.State.QUEUED, Operation.State.RUNNING])
        return same.first() or operations.submit(
            Operation.Kind.IMAGE_PULL, namespace, actor=actor, args={"reference": target}
        )


def image_tag(image: Image, name: str, actor: str) -> Tag:
    """Give the image a further name; another image that had it loses it, as with Docker.

    Raises InvalidReference, InvalidInput for a name with a digest."""
    reference = Reference.parse(name)
    if reference.digest is not None:
        raise InvalidInput(
            f"a tag cannot carry a digest: {name}", hint="leave the @sha256 part out", field="tag"
        )
    with transaction.atomic():
        tag, _ = Tag.objects.update_or_create(
            namespace=image.namespace,
            repository=reference.repository,
            tag=reference.tag,
            defaults={"image": image},
        )
        publish.changed(image.namespace_id, Kind.IMAGE, image.pk)
    return tag


def image_untag(tag: Tag, actor: str) -> None:
    """Take one name away; the image stays. Raises Conflict for the last name: remove the image."""
    with transaction.atomic():
        if tag.image.tags.count() == 1:
            raise Conflict(
                f"{tag.familiar} is the image's only name", hint="remove the image instead"
            )
        tag.delete()
        publish.changed(tag.namespace_id, Kind.IMAGE, tag.image_id)


def _name_of(image: Image) -> str:
    tag = image.tags.first()
    return tag.familiar if tag else image.short_id


def image_remove(image: Image, actor: str, force: bool = False) -> Operation:
    """Remove all its names and what no other image shares. Raises Conflict while containers are
    made from it, unless forced (then stopped ones lose nothing but the image's name)."""
    must_be_free(image, force)
    return operations.submit(
        Operation.Kind.IMAGE_REMOVE,
        image.namespace,
        actor=actor,
        target=str(image.pk),
        args={"force": force, "name": _name_of(image)},
    )


def must_be_free(image: Image, force: bool) -> None:
    """Raises Conflict naming the containers made from it; with `force` only those that run."""
    users = list(image.containers.order_by("name"))
    running = [c for c in users if c.is_running]
    blocking = running if force else users
    if blocking:
        names = ", ".join(c.name for c in blocking[:5]) + (" …" if len(blocking) > 5 else "")
        raise Conflict(
            f"image {image.short_id} is used by {names}",
            hint="remove those containers first",
            names=names,
        )


def image_record(
    namespace: Namespace,
    *,
    digest: str,
    manifest_digest: str,
    config: dict[str, Any],
    layers: list[dict[str, Any]],
    names: tuple[Reference, ...] = (),
) -> Image:
    """Write (or find) the row of an image whose blobs are committed, and point names at it."""
    with transaction.atomic():
        image, _ = Image.objects.update_or_create(
            namespace=namespace,
            digest=digest,
            defaults={
                "manifest_digest": manifest_digest,
                "size": sum(layer["size"] for layer in layers),
                "os": config.get("os", "linux"),
                "architecture": config.get("architecture", ""),
                "config": config,
                "layers": layers,
                "created_at": _created(config),
            },
        )
        for reference in names:
            Tag.objects.update_or_create(
                namespace=namespace,
                repository=reference.repository,
                tag=reference.tag or "latest",
                defaults={"image": image},
            )
        publish.changed(namespace.pk, Kind.IMAGE, image.pk)
    return image


def _created(config: dict[str, Any]) -> datetime:
    """The config's `created` (RFC 3339, up to nanoseconds); now where it names none."""
    text = str(config.get("created") or "")
    match = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{1,6})?\d*(Z|[+-]\d\d:\d\d)", text)
    if match is None:
        return timezone.now()
    return datetime.fromisoformat(
        match[1] + (match[2] or "") + ("+00:00" if match[3] == "Z" else match[3])
    )
