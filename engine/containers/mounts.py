"""What a container's mounts become for the runtime: volumes, folders of the host, tmpfs.

`settings.host.mounts` holds all of them (engine.services.volumes puts those of `--volumes-from`
and the image's VOLUMEs there too). A folder of the host is looked at once more here, by root:
its real path must lie within the ceiling, and the runtime mounts what was looked at, so that no
link put in its place leads elsewhere (security case 6; engine.containers.binds).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from engine.ceiling import Ceiling
from engine.config import EngineConfig
from engine.containers import binds, options
from engine.containers.volumes import VolumeAt, Volumes
from engine.containers.volumes import check as check_target
from engine.errors import InvalidInput, NotFound
from engine.runtime.spec import Mount

# moby volume/mounts: words that say something to others than mount(2).
_NO_MOUNT_WORDS = frozenset(
    {"z", "Z", "nocopy", "ro", "rw", "rbind", "bind", "consistent", "cached", "delegated"}
    | {"private", "rprivate", "shared", "rshared", "slave", "rslave"}
)
_TMPFS = ("noexec", "nosuid", "nodev", "rprivate")
_OPPOSITES = {
    "exec": "noexec",
    "suid": "nosuid",
    "dev": "nodev",
    "rw": "ro",
    "noexec": "exec",
    "nosuid": "suid",
    "nodev": "dev",
    "ro": "rw",
}


def fill(
    mounts: Iterable[options.Mount], volumes: Mapping[str, VolumeAt], store: Volumes, root: int
) -> None:
    """Copy-up: what the image has where a volume is mounted goes into the volume, if it is empty.

    `volumes` by container path; `root` is a descriptor of the container's file system, mounted,
    with nothing running in it. Raises EngineError, NotFound."""
    for mount in to_fill(mounts, volumes):
        store.fill(volumes[mount.destination].key, root, mount.destination)


def to_fill(
    mounts: Iterable[options.Mount], volumes: Mapping[str, VolumeAt]
) -> list[options.Mount]:
    return [
        mount
        for mount in mounts
        if mount.type == "volume"
        and not mount.no_copy
        and not _at(mount, volumes).options  # of what is mounted over it nothing would be seen
    ]


def check(
    mounts: Iterable[options.Mount], volumes: Mapping[str, VolumeAt], ceiling: Ceiling
) -> None:
    """What can be said of a container's mounts before it starts, by root. Raises PolicyDenied,
    NotFound, InvalidInput for a folder of the host that is not there and is not to be made."""
    for mount in mounts:
        path, create = _host_path(mount, volumes)
        if path:
            os.close(binds.open_allowed(path, ceiling, create=create))


def check_sources(mounts: Iterable[options.Mount], ceiling: Ceiling) -> None:
    """Before there is a container: folders of the host that are not to be made. By root. Raises
    PolicyDenied, InvalidInput."""
    check([mount for mount in mounts if mount.type == "bind" and not mount.create], {}, ceiling)


@contextmanager
def runtime_mounts(
    config: EngineConfig,
    id: str,
    mounts: Iterable[options.Mount],
    tmpfs: Mapping[str, str],
    volumes: Mapping[str, VolumeAt],
) -> Iterator[tuple[Mount, ...]]:
    """The entries of config.json, good while the block lasts. `volumes` and `tmpfs` by container
    path. Raises PolicyDenied, NotFound, InvalidInput, MountFailed."""
    store, stage = Volumes(config), binds.Stage(config, id)
    ceiling = Ceiling.load(config.home / "ceiling.json")
    found: list[Mount] = []
    with ExitStack() as held:
        for mount in mounts:
            destination = check_target(mount.destination)
            if mount.type == "tmpfs":
                words = (*mount.options, *(("ro",) if mount.read_only else ()))
                found.append(_tmpfs(destination, words))
                continue
            path, create = _host_path(mount, volumes)
            if path:
                descriptor = binds.open_allowed(path, ceiling, create=create)
                held.callback(os.close, descriptor)
                source = str(held.enter_context(stage.put(descriptor)))
            else:
                source = _volume(_at(mount, volumes), store)
            found.append(Mount(source, destination, "bind", _words(mount, volumes)))
        for target, text in tmpfs.items():
            found.append(_tmpfs(check_target(target), filter(None, text.split(","))))
        yield tuple(found)


def _at(mount: options.Mount, volumes: Mapping[str, VolumeAt]) -> VolumeAt:
    found = volumes.get(mount.destination)
    if found is None:
        raise NotFound(f"the volume at {mount.destination} is gone", kind="volume", name=mount.name)
    return found


def _host_path(mount: options.Mount, volumes: Mapping[str, VolumeAt]) -> tuple[str, bool]:
    """(the host's path, whether it is made where it is missing); "" for a volume of ours."""
    if mount.type == "bind":
        if not mount.source.startswith("/") or "\0" in mount.source:
            raise InvalidInput(
                f"invalid mount path: '{mount.source}' mount path must be absolute", field="mounts"
            )
        return mount.source, mount.create
    if mount.type == "volume":
        return _at(mount, volumes).device, False
    return "", False


def _volume(at: VolumeAt, store: Volumes) -> str:
    if at.tmpfs:
        store.mount(at.key, at.options)
        return str(store.data(at.key))
    return str(store.make(at.key))


def _words(mount: options.Mount, volumes: Mapping[str, VolumeAt]) -> tuple[str, ...]:
    read_only = mount.read_only
    if mount.type == "volume":
        read_only |= "ro" in _at(mount, volumes).options.get("o", "").split(",")
    return (
        "rbind" if mount.recursive else "bind",
        (mount.type == "bind" and mount.propagation) or "rprivate",
        "ro" if read_only else "rw",
        *(word for word in mount.options if word not in _NO_MOUNT_WORDS),
    )


def _tmpfs(destination: str, words: Iterable[str]) -> Mount:
    """moby pkg/mount MergeTmpfsOptions: a later word takes its opposite away."""
    merged = list(_TMPFS)
    for word in words:
        merged = [one for one in merged if one not in (word, _OPPOSITES.get(word))]
        merged.append(word)
    return Mount("tmpfs", destination, "tmpfs", tuple(merged))
