"""Images to and from elsewhere, as operations: push, load, import, commit, prune.

Rows only; engine.services.work.image_moves and image_making do the work. What a client sends along
lies in HOME/incoming, a file an operation, and goes when that has ended.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from django.conf import settings

from engine.errors import InvalidInput, NotFound
from engine.images import remote
from engine.models import Container, Image, Namespace, Operation, Tag, Upload
from engine.oci.digest import Digest, chain_ids
from engine.oci.reference import Reference
from engine.services import operations

_KEY = re.compile(r"[0-9a-f]{32}")


def incoming_path(key: str) -> Path:
    """Where what came with a request lies. Raises InvalidInput for what is no key."""
    if not _KEY.fullmatch(key):
        raise InvalidInput(f"not an incoming file: {key[:40]}")
    path: Path = settings.ENGINE.home / "incoming" / key
    return path


def incoming_new() -> tuple[str, Path]:
    """A key, and the path of the file to be written; the folder is root's alone."""
    key = secrets.token_hex(16)
    path = incoming_path(key)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    return key, path


def forget_strays(before: datetime) -> list[str]:
    """Incoming files that a killed process left: older, and no open operation's."""
    waiting = {o.args.get("incoming") for o in Operation.objects.open()}
    found = []
    for path in (settings.ENGINE.home / "incoming").glob("*"):
        with suppress(FileNotFoundError):
            if path.name not in waiting and path.stat().st_mtime < before.timestamp():
                path.unlink()
                found.append(f"an incoming file nobody waits for dropped: {path.name}")
    return found


def image_push(
    namespace: Namespace,
    name: str,
    actor: str,
    *,
    all_tags: bool = False,
    auth: str = "",
    via: str = "",
) -> Operation:
    """Send the image of this name, or with `all_tags` all of its repository, to its registry.

    Raises InvalidReference, NotFound."""
    reference = Reference.parse(name)
    rows = Tag.objects.filter(namespace=namespace, repository=reference.repository)
    if reference.digest is not None:
        raise InvalidInput("cannot push a digest reference")
    tags = sorted(
        tag for tag in rows.values_list("tag", flat=True) if all_tags or tag == reference.tag
    )
    if not tags:
        raise NotFound(f"An image does not exist locally with the tag: {reference.familiar_name()}")
    return operations.submit(
        Operation.Kind.IMAGE_PUSH,
        namespace,
        actor=actor,
        args={
            "name": name,
            "repository": reference.repository,
            "tags": tags,
            "auth": auth,
            "via": via,
        },
    )


def image_load(namespace: Namespace, key: str, actor: str) -> Operation:
    """Take in what `docker save` wrote, from an incoming file."""
    return operations.submit(
        Operation.Kind.IMAGE_LOAD, namespace, actor=actor, args={"incoming": key}
    )


def image_load_upload(upload: Upload, actor: str) -> Operation:
    """The same from what was uploaded on a page. Raises InvalidInput where it is not whole yet."""
    if not upload.complete:
        raise InvalidInput("the upload is not complete", hint="wait for its end", field="upload")
    return operations.submit(
        Operation.Kind.IMAGE_LOAD,
        upload.namespace,
        actor=actor,
        args={"upload": str(upload.pk), "name": upload.filename},
    )


def image_import(
    namespace: Namespace,
    key: str,
    actor: str,
    *,
    address: str = "",
    name: str = "",
    changes: Sequence[str] = (),
    message: str = "",
    platform: str = "",
    via: str = "",
) -> Operation:
    """One layer from a tar of a whole file system: an incoming file's, or what is fetched from
    `address`. `changes` are lines of a Dockerfile.

    Raises InvalidReference, InvalidInput for an address that is none."""
    source = {"address": remote.checked(address)} if address else {"incoming": key}
    return operations.submit(
        Operation.Kind.IMAGE_IMPORT,
        namespace,
        actor=actor,
        args={
            **source,
            "name": _name(name),
            "changes": list(changes),
            "message": message,
            "platform": platform,
            "via": via,
        },
    )


def image_commit(
    container: Container,
    actor: str,
    *,
    name: str = "",
    changes: Sequence[str] = (),
    message: str = "",
    author: str = "",
    pause: bool = True,
    config: Mapping[str, Any] | None = None,
) -> Operation:
    """An image from what a container has changed; `config` (Docker's container config) overrides
    the container's own. Raises InvalidReference."""
    return operations.submit(
        Operation.Kind.IMAGE_COMMIT,
        container.namespace,
        actor=actor,
        target=str(container.pk),
        args={
            "container": container.name,
            "name": _name(name),
            "changes": list(changes),
            "message": message,
            "author": author,
            "pause": pause,
            "config": dict(config or {}),
        },
    )


def prune(namespace: Namespace, chosen: Sequence[int], actor: str, *, dangling: bool) -> Operation:
    """Remove those of `chosen` (primary keys) that no container is made from; with `dangling` only
    those without a tag. Its result: {records, layers, bytes}."""
    return operations.submit(
        Operation.Kind.IMAGE_PRUNE,
        namespace,
        actor=actor,
        args={"images": list(chosen), "dangling": dangling},
    )


def prunable(namespace: Namespace, *, dangling: bool) -> list[Image]:
    """What a prune without filters would remove now."""
    rows = Image.objects.for_namespace(namespace).filter(containers=None)
    if dangling:
        tagged = Tag.objects.filter(namespace=namespace).values("image")
        rows = rows.exclude(pk__in=tagged)
    return list(rows.order_by("pk"))


def freed(namespace: Namespace, chosen: Sequence[Image]) -> int:
    """Bytes of the files that go with these images: layers no other image here has. A container
    whose image is gone, or the build cache, may keep some of them."""
    gone = {image.pk for image in chosen}
    kept: set[str] = set()
    sizes: dict[str, int] = {}
    for key, layers in Image.objects.for_namespace(namespace).values_list("pk", "layers"):
        chains = map(str, chain_ids(Digest.parse(layer["diff_id"]) for layer in layers))
        for layer, chain in zip(layers, chains, strict=True):
            if key in gone:
                sizes[chain] = int(layer.get("unpacked", layer["size"]))
            else:
                kept.add(chain)
    return sum(size for chain, size in sizes.items() if chain not in kept)


def _name(name: str) -> str:
    """Whole, or "" for none."""
    if not name:
        return ""
    reference = Reference.parse(name)
    if reference.digest is not None:
        raise InvalidInput(
            f"a tag cannot carry a digest: {name}", hint="leave the @sha256 part out", field="tag"
        )
    return reference.canonical()
