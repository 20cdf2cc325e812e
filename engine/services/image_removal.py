"""Removing images as moby does (daemon/images/image_delete.go): which names go, whether the image
goes with them, and what stands in the way.

Rows only, in one transaction; layers and blobs nobody needs any more are collected afterwards, by
engine.services.work.images. A *parent* is what an image was committed or built from: without the
images of single steps that moby's builder leaves in between.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from django.db import transaction

from engine import publish
from engine.errors import Conflict
from engine.events import Kind
from engine.models import Container, Image, Namespace, Operation, Tag
from engine.oci.digest import Digest, chain_ids
from engine.services import operations
from engine.services.images import find_named, image_event

_RUNNING = (
    Container.State.RUNNING,
    Container.State.PAUSED,
    Container.State.RESTARTING,
)


@dataclass(slots=True)
class Removal:
    """`records` as Docker's API lists them: {"Untagged": name} and {"Deleted": id}; `released` are
    the names of blobs and layers the deleted images had."""

    records: list[dict[str, str]] = field(default_factory=list)
    released: list[str] = field(default_factory=list)


class ImageConflict(Conflict):
    """An image cannot be removed, in moby's words."""


def remove(namespace: Namespace, name: str, *, force: bool = False, prune: bool = True) -> Removal:
    """Remove what `name` says: a name, and with the last one the image; or by its id the image.

    `prune` also removes parents that nothing else needs. Raises NotFound, InvalidInput,
    ImageConflict."""
    removal = Removal()
    with transaction.atomic():
        image, tag = find_named(namespace, name)
        names = _names(image)
        if tag is not None:
            if not force and _single(names) and (user := _user(image)):
                raise ImageConflict(
                    f'conflict: unable to remove repository reference "{name}" (must force) -'
                    f" container {user.short_id} is using its referenced image {image.short_id}"
                )
            if _untag(image, tag, removal):
                return removal
        elif _single(names):
            if conflict := _conflict(image, force=force, referenced=False):
                raise conflict
            for one in names:
                _drop(image, one, removal)
        _delete(image, removal, force=force, prune=prune, quiet=tag is not None)
    return removal


def collect(namespace: Namespace, removal: Removal, actor: str, name: str) -> Operation:
    """Let the worker take away what the deleted images alone had; its result's `layers` are the
    chain ids that went."""
    return operations.submit(
        Operation.Kind.IMAGE_REMOVE,
        namespace,
        actor=actor,
        args={"name": name, "released": removal.released},
    )


def delete_all(image: Image) -> Removal:
    """The image and all its names, whatever was made from it: what that needs stays."""
    removal = Removal()
    with transaction.atomic():
        _drop_all(image, removal)
    return removal


def delete_unused(image: Image) -> Removal:
    """As `docker image prune` removes one: name by name, and quietly where something is in the
    way."""
    removal = Removal()
    with transaction.atomic():
        for tag in _names(image):
            _drop(image, tag, removal)
        _delete(image, removal, force=False, prune=True, quiet=True)
    return removal


def content_of(image: Image) -> list[str]:
    """The names of its blobs and of its layers' snapshots."""
    chains = chain_ids(Digest.parse(layer["diff_id"]) for layer in image.layers)
    blobs = (layer["digest"] for layer in image.layers)
    return [image.digest, image.manifest_digest, *blobs, *map(str, chains)]


def children(image: Image) -> list[Image]:
    """Images committed or built from this one."""
    found = Image.objects.filter(namespace=image.namespace_id, config__parent=image.digest)
    return [one for one in found if parent_of(one) is not None]


def parent_of(image: Image) -> Image | None:
    """What it was made from, while that is here; the config says so and could say anything, so
    the layers must agree."""
    digest = image.config.get("parent")
    if not isinstance(digest, str):
        return None
    parent = Image.objects.filter(namespace=image.namespace_id, digest=digest).first()
    if parent is None or parent.pk == image.pk:
        return None
    own, below = ([layer["diff_id"] for layer in one.layers] for one in (image, parent))
    return parent if own[: len(below)] == below else None


def is_dangling(image: Image) -> bool:
    """Nothing names it and nothing was made from it."""
    return not _names(image) and not children(image)


def _names(image: Image) -> list[Tag]:
    """Tags first, then digests."""
    tags = Tag.objects.filter(image=image).order_by("repository", "tag")
    return [*tags, *Tag.digests.filter(image=image).order_by("repository", "tag")]


def _is_digest(tag: Tag) -> bool:
    return ":" in tag.tag


def _single(names: list[Tag]) -> bool:
    """At most one tag, and all digests in its repository."""
    if len(names) <= 1:
        return True
    tags = [one for one in names if not _is_digest(one)]
    repositories = {one.repository for one in names if _is_digest(one)}
    return len(tags) <= 1 and repositories == {(tags or names)[0].repository}


def _untag(image: Image, tag: Tag, removal: Removal) -> bool:
    """Take a name away, and digests of its repository with the last tag there; whether any name
    is left."""
    _drop(image, tag, removal)
    left = _names(image)
    if not _is_digest(tag) and not any(
        one.repository == tag.repository and not _is_digest(one) for one in left
    ):
        for one in left:
            if one.repository == tag.repository:
                _drop(image, one, removal)
        left = [one for one in left if one.repository != tag.repository]
    return bool(left)


def _drop(image: Image, tag: Tag, removal: Removal) -> None:
    removal.records.append({"Untagged": tag.familiar})
    tag.delete()
    image_event(image, "untag")
    publish.changed(image.namespace_id, Kind.IMAGE, image.pk)


def _user(image: Image, states: Iterable[str] | None = None) -> Container | None:
    users = Container.objects.filter(image=image).order_by("pk")
    return (users.filter(state__in=list(states)) if states is not None else users).first()


def _conflict(image: Image, *, force: bool, referenced: bool = True) -> ImageConflict | None:
    if children(image):
        return _cannot(image, "cannot be forced", "image has dependent child images")
    if user := _user(image, _RUNNING):
        return _cannot(
            image,
            "cannot be forced",
            f"image is being used by running container {user.short_id}",
            user,
        )
    if force:
        return None
    if referenced and _names(image):
        return _cannot(image, "must be forced", "image is referenced in multiple repositories")
    if user := _user(image):
        return _cannot(
            image,
            "must be forced",
            f"image is being used by stopped container {user.short_id}",
            user,
        )
    return None


def _cannot(image: Image, how: str, why: str, user: Container | None = None) -> ImageConflict:
    context = {"container": user.short_id} if user else {}
    return ImageConflict(f"conflict: unable to delete {image.short_id} ({how}) - {why}", **context)


def _delete(image: Image, removal: Removal, *, force: bool, prune: bool, quiet: bool) -> None:
    if conflict := _conflict(image, force=force):
        if quiet and (conflict.context or not is_dangling(image)):
            return
        raise conflict
    parent = parent_of(image)
    _drop_all(image, removal)
    if prune and parent is not None:
        _delete(parent, removal, force=False, prune=True, quiet=True)


def _drop_all(image: Image, removal: Removal) -> None:
    for tag in _names(image):
        _drop(image, tag, removal)
    key, digest = image.pk, image.digest
    image_event(image, "delete")
    removal.records.append({"Deleted": digest})
    removal.released += content_of(image)
    image.delete()
    publish.changed(image.namespace_id, Kind.IMAGE, key)
