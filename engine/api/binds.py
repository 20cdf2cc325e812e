"""What `-v` and `--mount` ask for: HostConfig's Binds and Mounts as engine.containers' mounts.

The grammar is moby's (volume/mounts/linux_parser.go), and so are the texts of what is wrong.
"""

from __future__ import annotations

from collections.abc import Iterable

from engine.api.fields import Fields
from engine.containers.options import Mount
from engine.errors import InvalidInput, Unsupported

_ACCESS = {"ro", "rw"}
_LABELS = {"z", "Z"}
_PROPAGATION = {"private", "rprivate", "slave", "rslave", "shared", "rshared"}
_CONSISTENCY = {"consistent", "cached", "delegated", "default"}


def read_bind(text: str) -> Mount:
    """SOURCE:DESTINATION[:WORDS]; without a source an anonymous volume. Raises InvalidInput."""
    parts = text.split(":")
    if len(parts) > 3 or not all(parts[:2]):
        raise InvalidInput(f"invalid volume specification: '{text}'")
    if len(parts) == 1:
        return Mount("volume", _absolute(text, parts[0], "volume"))
    source, destination = parts[0], parts[1]
    words = [word for word in (parts[2] if len(parts) == 3 else "").split(",") if word]
    kind = "bind" if source.startswith("/") else "volume"
    if not _fit(words, kind):
        raise InvalidInput(f"invalid mode: {parts[2]}")
    _absolute(text, destination, kind)
    options = tuple(word for word in words if word in _LABELS)
    if kind == "volume":
        return Mount(
            "volume",
            destination,
            name=source,
            read_only="ro" in words,
            options=options,
            no_copy="nocopy" in words,
        )
    propagation = next((word for word in words if word in _PROPAGATION), "")
    return Mount(
        "bind",
        destination,
        source=source,
        read_only="ro" in words,
        propagation=propagation,
        options=options,
        create=True,
    )


def _fit(words: list[str], kind: str) -> bool:
    """Known, and none of two that exclude each other."""
    groups = [_ACCESS, _LABELS, _CONSISTENCY, _PROPAGATION if kind == "bind" else {"nocopy"}]
    counts = [sum(word in group for word in words) for group in groups]
    return sum(counts) == len(words) and max(counts) <= 1


def _absolute(text: str, path: str, kind: str) -> str:
    if not path.startswith("/"):
        raise InvalidInput(
            f"invalid volume specification: '{text}': invalid mount config for type \"{kind}\": "
            f"invalid mount path: '{path}' mount path must be absolute"
        )
    if path.strip("/") == "":
        raise InvalidInput(
            f"invalid volume specification: '{text}': invalid mount config for type \"{kind}\": "
            "invalid specification: destination can't be '/'"
        )
    return path


def read_mounts(entries: Iterable[Fields]) -> tuple[Mount, ...]:
    """HostConfig.Mounts. Raises InvalidInput, Unsupported."""
    return tuple(_read_mount(entry) for entry in entries)


def _read_mount(entry: Fields) -> Mount:
    kind, target, source = (entry.text(key) for key in ("Type", "Target", "Source"))
    read_only = entry.flag("ReadOnly")
    consistency = entry.text("Consistency")
    if consistency and consistency not in _CONSISTENCY:
        raise _bad(kind, f"unknown consistency mode: {consistency}")
    if kind not in ("bind", "volume", "tmpfs"):
        raise _bad(kind, "mount type unknown")
    if not target:
        raise _bad(kind, "field Target must not be empty")
    if not target.startswith("/"):
        raise _bad(kind, f"invalid mount path: '{target}' mount path must be absolute")
    if target.strip("/") == "":
        raise _bad(kind, "invalid specification: destination can't be '/'")
    bind, volume, tmpfs = (
        entry.object(key) for key in ("BindOptions", "VolumeOptions", "TmpfsOptions")
    )
    for key, allowed in (
        ("BindOptions", "bind"),
        ("VolumeOptions", "volume"),
        ("TmpfsOptions", "tmpfs"),
    ):
        if entry.raw(key) is not None and kind != allowed:
            raise _bad(kind, f"field {key} must not be specified")
    if kind == "bind":
        found = _bind(bind, source, target, read_only)
    elif kind == "volume":
        found = _volume(volume, source, target, read_only)
    else:
        found = _tmpfs(tmpfs, source, target, read_only)
    for fields, name in (
        (entry, "Mounts"),
        (bind, "Mounts.BindOptions"),
        (volume, "Mounts.VolumeOptions"),
        (tmpfs, "Mounts.TmpfsOptions"),
    ):
        refuse_unread(fields, name)
    return found


def _bind(options: Fields, source: str, target: str, read_only: bool) -> Mount:
    if not source:
        raise _bad("bind", "field Source must not be empty")
    if not source.startswith("/"):
        raise _bad("bind", f"invalid mount path: '{source}' mount path must be absolute")
    propagation = options.text("Propagation")
    if propagation and propagation not in _PROPAGATION:
        raise _bad("bind", f"invalid propagation mode: {propagation}")
    return Mount(
        "bind",
        target,
        source=source,
        read_only=read_only,
        propagation=propagation,
        create=options.flag("CreateMountpoint"),
        recursive=not options.flag("NonRecursive"),
    )


def _volume(options: Fields, source: str, target: str, read_only: bool) -> Mount:
    driver = options.object("DriverConfig")
    name = driver.text("Name")
    if name not in ("", "local"):
        raise InvalidInput(
            f'create {source}: error looking up volume plugin {name}: plugin "{name}" not found'
        )
    found = Mount(
        "volume",
        target,
        name=source,
        read_only=read_only,
        no_copy=options.flag("NoCopy"),
        driver_options=driver.mapping("Options"),
        labels=options.mapping("Labels"),
    )
    if not source and read_only:
        raise _bad("volume", "must not set ReadOnly mode when using anonymous volumes")
    refuse_unread(driver, "Mounts.VolumeOptions.DriverConfig")
    return found


def _tmpfs(options: Fields, source: str, target: str, read_only: bool) -> Mount:
    if source:
        raise _bad("tmpfs", "field Source must not be specified")
    size, mode = options.number("SizeBytes"), options.number("Mode")
    words = []
    if size:
        words.append(f"size={size}")
    if mode:
        words.append(f"mode={mode:o}")
    return Mount("tmpfs", target, read_only=read_only, options=tuple(words))


def refuse_unread(fields: Fields, name: str) -> None:
    """Nothing that was asked for is left out in silence. Raises Unsupported."""
    for key in fields.unread():
        raise Unsupported(f"{name}.{key} is not supported")


def _bad(kind: str, text: str) -> InvalidInput:
    return InvalidInput(f'invalid mount config for type "{kind}": {text}')
