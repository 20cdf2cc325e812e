"""Saving from this machine: which images by which names, and the archive's pieces."""

from __future__ import annotations

from engine.errors import NotFound
from engine.images.save import Piece, Saved, save
from engine.models import Image, Namespace, Tag
from engine.oci.digest import Digest
from engine.oci.reference import Reference
from engine.services import images
from engine.services.work.host import host


def archive(namespace: Namespace, names: list[str]) -> list[Piece]:
    """The archive of what `names` say, gathered by image; a repository's name alone stands for all
    its tags, an id for none. Raises NotFound, InvalidInput."""
    chosen: dict[int, tuple[Image, list[Reference]]] = {}
    for name in names:
        image, tag = _found(namespace, name)
        if tag is None:
            chosen.setdefault(image.pk, (image, []))
            continue
        reference = Reference.parse(name)
        rows = Tag.objects.select_related("image").filter(
            namespace=namespace, repository=reference.repository
        )
        if reference.digest is not None:
            rows = rows.none()
            chosen.setdefault(image.pk, (image, []))
        elif _has_tag(name):
            rows = rows.filter(tag=reference.tag)
        for row in rows:
            found = chosen.setdefault(row.image_id, (row.image, []))[1]
            named = reference.with_tag(row.tag)
            if named not in found:
                found.append(named)
    with_names = [
        (image, Saved(Digest(image.manifest_digest), Digest(image.digest), tuple(references)))
        for image, references in chosen.values()
    ]
    pieces = save(host().content, [saved for _, saved in with_names])
    for image, _ in with_names:
        images.image_event(image, "save")
    return pieces


def _found(namespace: Namespace, name: str) -> tuple[Image, Tag | None]:
    """A repository need not have a `latest` to be saved, and an error does not make one up."""
    try:
        return images.find_named(namespace, name)
    except NotFound as error:
        if _has_tag(name) or "@" in name:
            raise
        repository = Reference.parse(name).repository
        tag = Tag.objects.filter(namespace=namespace, repository=repository).first()
        if tag is None:
            raise NotFound(
                error.message, hint=error.hint, **{**error.context, "name": name}
            ) from error
        return tag.image, tag


def _has_tag(name: str) -> bool:
    return ":" in name.rpartition("/")[2]
