"""Volumes as people ask for them: create, find, remove, prune, and what a new container takes.

A volume in use is held by VolumeUse rows, written in the transaction that makes the container:
between a removal and a creation one is always first. Files are made and removed by
`engine.services.work.volumes`.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Count
from django.utils import timezone

from engine import publish
from engine.ceiling import Ceiling
from engine.containers.options import HostOptions, Mount
from engine.containers.settings import ContainerSettings
from engine.containers.volumes import VolumeAt, check
from engine.errors import Conflict, InvalidInput, NotFound, Unsupported
from engine.events import Kind
from engine.models import Container, Namespace, Operation, Volume, VolumeUse
from engine.services import events, labels, namespaces, operations
from engine.services.lookup import find_container

DRIVER = "local"
# Of moby's local driver; `usage` beside them is ours (see `measured`).
OPTIONS = ("type", "device", "o")
_USAGE = "usage"
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_MODES = frozenset({"ro", "rw", "z", "Z", ""})


@dataclass(frozen=True, slots=True)
class Usage:
    """`size` in bytes when it was last measured, `at` when that was, both None before; `seconds`
    it took."""

    size: int | None
    at: datetime | None
    seconds: float = 0.0


def volume_create(
    namespace: Namespace,
    name: str = "",
    *,
    driver: str = DRIVER,
    labels: Mapping[str, str] | None = None,
    options: Mapping[str, str] | None = None,
) -> Volume:
    """The row; its folder appears at its first use. The one there is where the name is taken, as
    it was made then. Without a name it gets 64 hex digits, and is anonymous.

    Raises InvalidInput (with `field`), NotFound for another driver, Unsupported, PolicyDenied."""
    if name:
        check_name(name)
    _check_driver(name, driver)
    check_options(name, options or {})
    with transaction.atomic():
        namespaces.lock(namespace)
        return _take(namespace, name, labels or {}, options or {})


def find_volume(namespace: Namespace, name: str) -> Volume:
    """Raises NotFound."""
    found = Volume.objects.for_namespace(namespace).filter(name=name).first()
    if found is None:
        raise NotFound(f"no such volume: {name}", kind="volume", name=name)
    return found


def volume_remove(volume: Volume, actor: str) -> Operation:
    """Raises Conflict while a container has it, running or not."""
    must_be_free(volume)
    return operations.submit(
        Operation.Kind.VOLUME_REMOVE,
        volume.namespace,
        actor=actor,
        target=str(volume.pk),
        args={"name": volume.name},
    )


def must_be_free(volume: Volume) -> None:
    """Raises Conflict naming the containers."""
    users = list(
        volume.uses.order_by("pk").values_list("container__uid", "container__name").distinct()
    )
    if users:
        ids = dict.fromkeys(uid for uid, _ in users)
        raise Conflict(
            f"remove {volume.name}: volume is in use - [{', '.join(ids)}]",
            volume=volume.name,
            containers=", ".join(dict.fromkeys(name for _, name in users)),
        )


def volumes_prune(
    namespace: Namespace,
    actor: str,
    *,
    all: bool = False,
    label: Iterable[str] = (),
    label_not: Iterable[str] = (),
) -> Operation:
    """Remove what no container has: anonymous ones, with `all` named ones too; `label` and
    `label_not` are `key` or `key=value`. Its result: {"volumes": [names], "bytes": int}."""
    return operations.submit(
        Operation.Kind.VOLUME_PRUNE,
        namespace,
        actor=actor,
        args={"all": all, "label": list(label), "label_not": list(label_not)},
    )


def prunable(
    namespace: Namespace, *, all: bool, label: Iterable[str] = (), label_not: Iterable[str] = ()
) -> list[Volume]:
    """What `volumes_prune` would remove now."""
    found = Volume.objects.for_namespace(namespace).filter(uses=None)
    if not all:
        found = found.filter(anonymous=True)
    return [
        volume
        for volume in found.order_by("created_at", "pk")
        if labels.match(volume.labels, label, label_not)
    ]


def listed(namespace: Namespace) -> list[Volume]:
    """All volumes by name; `users` of each needs no further query."""
    return list(
        Volume.objects.for_namespace(namespace)
        .annotate(user_count=Count("uses__container", distinct=True))
        .order_by("name")
    )


def users(volume: Volume) -> int:
    """How many containers have it, running or not."""
    known: int | None = getattr(volume, "user_count", None)
    if known is None:
        return volume.uses.values("container").distinct().count()
    return known


def driver_options(volume: Volume) -> dict[str, str]:
    return {name: volume.options[name] for name in OPTIONS if name in volume.options}


def usage(volume: Volume) -> Usage:
    """As it was last measured (engine.services.work.volumes)."""
    kept: dict[str, Any] = volume.options.get(_USAGE) or {}
    if "size" not in kept:
        return Usage(None, None)
    at = datetime.fromisoformat(kept["at"])
    return Usage(int(kept["size"]), at, float(kept.get("seconds", 0)))


def measured(volume: Volume, size: int, seconds: float = 0.0) -> None:
    """Keep a size, and how long it took to find; tells watchers when it is another."""
    before = usage(volume).size
    kept = {"size": size, "at": timezone.now().isoformat(), "seconds": round(seconds, 3)}
    with transaction.atomic():
        volume.options = {**volume.options, _USAGE: kept}
        Volume.objects.filter(pk=volume.pk).update(options=volume.options)
        if before != size:
            publish.changed(volume.namespace_id, Kind.VOLUME, volume.pk)


def mountpoint(volume: Volume) -> str:
    """Where its files lie, for inspect: the host's path."""
    return str(settings.ENGINE.volumes_dir / volume.key.hex / "_data")


def plan(namespace: Namespace, host: HostOptions, volumes: Iterable[str]) -> HostOptions:
    """`host` with every mount of a new container in `mounts`: what others lend it
    (`volumes_from`), its own, and an anonymous volume for each of `volumes` (container paths)
    that nothing else lies at. moby daemon/volumes_unix.go registerMountPoints, in its order.

    Raises InvalidInput, NotFound, PolicyDenied, Unsupported."""
    lent: dict[str, Mount] = {}
    for text in host.volumes_from:
        lent |= _lent(namespace, text)
    own: dict[str, Mount] = {}
    for mount in host.mounts:
        mount = replace(mount, destination=check(mount.destination))
        if mount.destination in own:
            raise InvalidInput(f"Duplicate mount point: {mount.destination}", field="mounts")
        if mount.type == "volume":
            if mount.name:
                check_name(mount.name)
            check_options(mount.name, mount.driver_options)
        own[mount.destination] = mount
    tmpfs = {check(path): words for path, words in host.tmpfs.items()}
    for destination in tmpfs:
        if destination in own:
            raise InvalidInput(f"Duplicate mount point: {destination}", field="mounts")
    found = {path: mount for path, mount in lent.items() if path not in tmpfs} | own
    for path in map(check, volumes):
        if path not in found and path not in tmpfs:
            found[path] = Mount("volume", path)
    return replace(host, mounts=tuple(found.values()), tmpfs=tmpfs)


def take(container: Container, container_settings: ContainerSettings) -> None:
    """A new container's volumes: those there are, and rows for the others. Call it in the
    transaction that makes the container, with the namespace locked."""
    for mount in container_settings.host.mounts:
        if mount.type == "volume":
            volume = _take(container.namespace, mount.name, mount.labels, mount.driver_options)
            VolumeUse.objects.create(
                volume=volume,
                container=container,
                destination=mount.destination,
                read_only=mount.read_only,
            )
            publish.changed(container.namespace_id, Kind.VOLUME, volume.pk)


def uses_of(container: Container) -> list[VolumeUse]:
    """Its volumes; most containers have none, and their settings say so without a query."""
    mounts = container.settings.get("host", {}).get("mounts", ())
    if not any(mount.get("type") == "volume" for mount in mounts):
        return []
    return list(container.volume_uses.select_related("volume"))


def volumes_at(uses: Iterable[VolumeUse]) -> dict[str, VolumeAt]:
    """What the engine needs of a container's volumes, by container path."""
    return {
        use.destination: VolumeAt(use.volume.key.hex, driver_options(use.volume)) for use in uses
    }


def check_name(name: str) -> None:
    """Raises InvalidInput, in moby's words (volume/local)."""
    if len(name) == 1:
        raise InvalidInput(
            f"create {name}: volume name is too short, names should be at least two "
            "alphanumeric characters",
            field="name",
        )
    if not _NAME.fullmatch(name) or len(name) > 255:
        raise InvalidInput(
            f'create {name}: "{name}" includes invalid characters for a local volume name, only '
            '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, '
            "use absolute path",
            field="name",
        )


def check_options(name: str, options: Mapping[str, str]) -> None:
    """The local driver's. Raises InvalidInput, Unsupported, PolicyDenied (security case 6)."""
    for key in options:
        if key not in OPTIONS:
            raise InvalidInput(f'create {name}: invalid option: "{key}"', field="options")
    if not options:
        return
    if not options.get("device"):
        raise InvalidInput(f'create {name}: missing required option: "device"', field="options")
    if any("\0" in value for value in options.values()):
        raise InvalidInput(f"create {name}: a zero byte in the options", field="options")
    at = VolumeAt("", options)
    if at.device:
        if not at.device.startswith("/"):
            raise InvalidInput(
                f"create {name}: the device is not an absolute path: {at.device}", field="options"
            )
        ceiling = Ceiling.load(settings.ENGINE.home / "ceiling.json")
        ceiling.check_bind(os.path.realpath(at.device))
    elif not at.tmpfs:
        raise Unsupported(
            f"create {name}: volumes of type {options.get('type', '')!r} are not supported",
            hint="type=tmpfs, or a folder of the host with o=bind",
        )


def _check_driver(name: str, driver: str) -> None:
    if driver not in (DRIVER, ""):
        raise NotFound(
            f'create {name}: error looking up volume plugin {driver}: plugin "{driver}" not found',
            driver=driver,
        )


def _take(
    namespace: Namespace, name: str, labels: Mapping[str, str], options: Mapping[str, str]
) -> Volume:
    if name:
        found = Volume.objects.for_namespace(namespace).filter(name=name).first()
        if found is not None:
            return found
    volume = Volume.objects.create(
        namespace=namespace,
        name=name or secrets.token_hex(32),
        anonymous=not name,
        labels=dict(labels),
        options=dict(options),
    )
    events.record(namespace, "volume", "create", volume.name, {"driver": DRIVER})
    publish.changed(namespace.pk, Kind.VOLUME, volume.pk)
    return volume


def _lent(namespace: Namespace, text: str) -> dict[str, Mount]:
    """The mounts of one `--volumes-from NAME[:MODE]`, by container path."""
    name, _, mode = text.partition(":")
    if not name:
        raise InvalidInput("malformed volumes-from specification: ", field="volumes_from")
    if mode not in _MODES:
        raise InvalidInput(f"invalid mode: {mode}", field="volumes_from")
    lender = find_container(namespace, name)
    names = dict(lender.volume_uses.values_list("destination", "volume__name"))
    return {
        mount.destination: replace(
            mount,
            name=names.get(mount.destination, mount.name),
            read_only=mount.read_only or mode == "ro",
            no_copy=True,
            create=False,
        )
        for mount in ContainerSettings.from_json(lender.settings).host.mounts
        if mount.type != "tmpfs"
    }
