"""Images in Docker's shapes: a line of the list, inspect, history. Pure: rows in, JSON out.

What needs the machine (the folders of the layers) is given by the caller.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from engine.models import Image, Tag
from engine.oci.digest import Digest, chain_ids

_NO_TAG, _NO_DIGEST = "<none>:<none>", "<none>@<none>"
# What dockerd puts into Config where the image's own has nothing (api/types/container.Config).
_CONFIG: Mapping[str, Any] = {
    "Hostname": "",
    "Domainname": "",
    "User": "",
    "AttachStdin": False,
    "AttachStdout": False,
    "AttachStderr": False,
    "Tty": False,
    "OpenStdin": False,
    "StdinOnce": False,
    "Env": None,
    "Cmd": None,
    "Image": "",
    "Volumes": None,
    "WorkingDir": "",
    "Entrypoint": None,
    "OnBuild": None,
    "Labels": None,
}


class Names:
    """Tags and digests of many images by two queries."""

    def __init__(self, images: Iterable[Image]) -> None:
        keys = [image.pk for image in images]
        self._tags: dict[int, list[str]] = {}
        self._digests: dict[int, list[str]] = {}
        for rows, found in ((Tag.objects, self._tags), (Tag.digests, self._digests)):
            for tag in rows.filter(image__in=keys).order_by("repository", "tag"):
                found.setdefault(tag.image_id, []).append(tag.familiar)

    def keep(self, fits: Callable[[str], bool]) -> None:
        """Forget the names that do not fit."""
        for found in (self._tags, self._digests):
            for key, names in found.items():
                found[key] = [name for name in names if fits(name)]

    def tags(self, image: Image) -> list[str]:
        """node:latest …"""
        return self._tags.get(image.pk, [])

    def digests(self, image: Image) -> list[str]:
        """node@sha256:…"""
        return self._digests.get(image.pk, [])


def labels_of(image: Image) -> dict[str, str]:
    """{} for none."""
    labels = (image.config.get("config") or {}).get("Labels") or {}
    return {str(key): str(value) for key, value in labels.items()}


def chains_of(image: Image) -> tuple[Digest, ...]:
    """Of its layers, bottom first."""
    return chain_ids(Digest.parse(layer["diff_id"]) for layer in image.layers)


def unpacked(layer: Mapping[str, Any]) -> int:
    """Bytes of a layer's files."""
    return int(layer.get("unpacked", layer["size"]))


def shared_sizes(images: Sequence[Image]) -> dict[int, int]:
    """By primary key: bytes of its layers that others of these have too."""
    stacks = {image.pk: chains_of(image) for image in images}
    users = Counter(chain for stack in stacks.values() for chain in set(stack))
    return {
        image.pk: sum(
            unpacked(layer)
            for layer, chain in zip(image.layers, stacks[image.pk], strict=True)
            if users[chain] > 1
        )
        for image in images
    }


def layers_size(images: Iterable[Image]) -> int:
    """Bytes of all layers together, each once."""
    sizes: dict[str, int] = {}
    for image in images:
        for layer, chain in zip(image.layers, chains_of(image), strict=True):
            sizes[chain] = unpacked(layer)
    return sum(sizes.values())


def summary(
    image: Image,
    names: Names,
    *,
    version: tuple[int, int],
    parent: str = "",
    shared: int = -1,
    containers: int = -1,
) -> dict[str, Any]:
    """A line of GET /images/json; -1 stands for what was not counted."""
    tags, digests = names.tags(image), names.digests(image)
    if version < (1, 43) and not tags and not digests:
        tags, digests = [_NO_TAG], [_NO_DIGEST]
    found: dict[str, Any] = {
        "Containers": containers,
        "Created": int(image.created_at.timestamp()),
        "Id": image.digest,
        "Labels": labels_of(image) or None,
        "ParentId": parent,
        "RepoDigests": digests,
        "RepoTags": tags,
        "SharedSize": shared,
        "Size": image.size,
    }
    if version < (1, 44):
        found["VirtualSize"] = image.size
    return found


def inspect(
    image: Image,
    names: Names,
    *,
    version: tuple[int, int],
    parent: str,
    folders: Mapping[str, str],
    tagged_at: datetime | None,
) -> dict[str, Any]:
    """GET /images/NAME/json; `folders` is GraphDriver's Data."""
    config = image.config
    history = config.get("history") or [{}]
    found: dict[str, Any] = {
        "Id": image.digest,
        "RepoTags": names.tags(image),
        "RepoDigests": names.digests(image),
        "Parent": parent,
        "Comment": str(config.get("comment") or history[-1].get("comment") or ""),
        "Created": str(config.get("created") or "0001-01-01T00:00:00Z"),
    }
    # moby left them out from 1.45 on; of a commit they are shown all the same, as many ask for it.
    if version < (1, 45) or config.get("container"):
        found["Container"] = str(config.get("container") or "")
        found["ContainerConfig"] = {**_CONFIG, **(config.get("container_config") or {})}
    found |= {
        "DockerVersion": str(config.get("docker_version") or ""),
        "Author": str(config.get("author") or ""),
        "Config": {**_CONFIG, **(config.get("config") or {})},
        "Architecture": image.architecture,
    }
    for key, name in (("Variant", "variant"), ("OsVersion", "os.version")):
        if config.get(name):
            found[key] = str(config[name])
    found |= {"Os": image.os, "Size": image.size}
    if version < (1, 44):
        found["VirtualSize"] = image.size
    moment = tagged_at.isoformat() if tagged_at else "0001-01-01T00:00:00Z"
    return {
        **found,
        "GraphDriver": {"Data": dict(folders) or None, "Name": "overlay2"},
        "RootFS": {"Type": "layers", "Layers": [layer["diff_id"] for layer in image.layers]},
        "Metadata": {"LastTagTime": moment.replace("+00:00", "Z")},
    }


def history(image: Image, parents: Sequence[Image], names: Names) -> list[dict[str, Any]]:
    """GET /images/NAME/history, the latest entry first; `parents` are those known, nearest first,
    each at the entry that was its last."""
    sizes = iter([unpacked(layer) for layer in image.layers])
    entries: list[dict[str, Any]] = [
        {
            "Comment": str(entry.get("comment") or ""),
            "Created": _seconds(str(entry.get("created") or "")),
            "CreatedBy": str(entry.get("created_by") or ""),
            "Id": "<missing>",
            "Size": 0 if entry.get("empty_layer") else next(sizes, 0),
            "Tags": None,
        }
        for entry in image.config.get("history") or ()
    ]
    entries.reverse()
    for one in (image, *parents):
        at = len(entries) - len(one.config.get("history") or ())
        if 0 <= at < len(entries):
            entries[at]["Id"] = one.digest
            entries[at]["Tags"] = names.tags(one) or None
    return entries


def _seconds(created: str) -> int:
    """0001-01-01 where there is none, as Go's zero time."""
    match = re.match(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(Z|[+-]\d\d:\d\d)$", created)
    if match is None:
        return -62135596800
    zone = "+00:00" if match[2] == "Z" else match[2]
    return int(datetime.fromisoformat(match[1] + zone).timestamp())
