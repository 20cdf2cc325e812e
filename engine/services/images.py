"""Images as people name them: find, pull, tag, untag, and recording what was made.

Removing is engine.services.image_removal's; push, load, import and commit are
engine.services.image_transfers'."""

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
from engine.services import events, namespaces, operations

_ID = re.compile(r"(sha256:)?[0-9a-f]{1,64}")
_WHOLE_ID = re.compile(r"(sha256:)?[0-9a-f]{64}")
_MAX_SIZE = 2**62  # of the column: lengths are what archives claim


def find_image(namespace: Namespace, name_or_id: str) -> Image:
    """By name (node, node:20, host:5000/a/b, node@sha256:…), by id or the beginning of one.

    A name wins over an id, as with Docker. Raises NotFound, InvalidInput."""
    return find_named(namespace, name_or_id)[0]


def find_named(namespace: Namespace, name_or_id: str) -> tuple[Image, Tag | None]:
    """The image, and the name by which it was found; None where it was its id."""
    text = name_or_id.strip()
    shown = text
    if not _WHOLE_ID.fullmatch(text):
        reference = Reference.parse(text)
        shown = reference.familiar()
        tag = _named(namespace, reference)
        if tag:
            return tag.image, tag
    if _ID.fullmatch(text):
        beginning = f"sha256:{text.removeprefix('sha256:')}"
        by_id = list(
            Image.objects.for_namespace(namespace).filter(digest__startswith=beginning)[:2]
        )
        if len(by_id) == 1:
            return by_id[0], None
        if by_id:
            raise InvalidInput(
                f"several images begin with {text}", hint="give more of the id", field="image"
            )
    raise NotFound(
        f"no such image here: {text}",
        hint="pull it, or build it",
        kind="image",
        name=shown if shown != text or ":" in text else f"sha256:{text}",
        field="image",
    )


def named(namespace: Namespace, reference: Reference) -> Image | None:
    """What has this name now."""
    tag = _named(namespace, reference)
    return tag.image if tag else None


def _named(namespace: Namespace, reference: Reference) -> Tag | None:
    """By digest its tag does not matter: the image must be what the digest says."""
    rows = (Tag.digests if reference.digest else Tag.objects).select_related("image")
    tag = rows.filter(
        namespace=namespace,
        repository=reference.repository,
        tag=str(reference.digest or reference.tag),
    ).first()
    if tag is None and reference.digest is not None:
        # One platform's manifest, where the name was pulled by its index.
        tag = (
            Tag.objects.select_related("image")
            .filter(
                namespace=namespace,
                repository=reference.repository,
                image__manifest_digest=str(reference.digest),
            )
            .first()
        )
    return tag


def image_pull(namespace: Namespace, name: str, actor: str, **args: str) -> Operation:
    """Fetch from the registry the name says; `args`: platform ("linux/arm64"), auth (a key of
    engine.services.credentials). Two pulls of one name at once are one operation.

    Raises InvalidReference."""
    reference = Reference.parse(name)
    given = {key: value for key, value in args.items() if value}
    with transaction.atomic():
        namespaces.lock(namespace)
        target = reference.canonical()
        same = (
            Operation.objects.open()
            .filter(namespace=namespace, kind=Operation.Kind.IMAGE_PULL, args__reference=target)
            .order_by("pk")
        )
        found = next((o for o in same if o.args.get("platform") == given.get("platform")), None)
        return found or operations.submit(
            Operation.Kind.IMAGE_PULL, namespace, actor=actor, args={"reference": target, **given}
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
        image_event(image, "tag", reference.familiar())
        publish.changed(image.namespace_id, Kind.IMAGE, image.pk)
    return tag


def digest_record(image: Image, reference: Reference, digest: str) -> None:
    """`reference`'s repository calls the image so: Docker's RepoDigests."""
    Tag.digests.update_or_create(
        namespace_id=image.namespace_id,
        repository=reference.repository,
        tag=digest,
        defaults={"image": image},
    )


def image_event(image: Image, action: str, name: str = "", actor_id: str = "") -> None:
    """As moby's LogImageEvent: its labels go with it; without a name it is the id."""
    labels = (image.config.get("config") or {}).get("Labels") or {}
    attributes = {str(key): str(value) for key, value in labels.items()}
    attributes["name"] = name or image.digest
    events.record(image.namespace_id, "image", action, actor_id or image.digest, attributes)


def image_untag(tag: Tag, actor: str) -> None:
    """Take one name away; the image stays. Raises Conflict for the last name: remove the image."""
    with transaction.atomic():
        if tag.image.tags.count() == 1:
            raise Conflict(
                f"{tag.familiar} is the image's only name", hint="remove the image instead"
            )
        tag.delete()
        image_event(tag.image, "untag")
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
    """Write (or find) the row of an image whose blobs are committed, and point names at it.

    `layers` from the bottom up: digest, diff_id, size (as stored), media_type and, where known,
    `unpacked`: the lengths of its files, which make the image's size as Docker counts it."""
    with transaction.atomic():
        image, _ = Image.objects.update_or_create(
            namespace=namespace,
            digest=digest,
            defaults={
                "manifest_digest": manifest_digest,
                "size": min(
                    sum(layer.get("unpacked", layer["size"]) for layer in layers), _MAX_SIZE
                ),
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
