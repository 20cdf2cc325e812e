"""`RUN --mount=…`: its comma-separated options as a value. Mounting is engine.build's."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from dataclasses import dataclass

from engine.dockerfile.flags import did_you_mean
from engine.errors import InvalidInput

TYPES = ("bind", "cache", "tmpfs", "secret", "ssh")
SHARING = ("shared", "private", "locked")

_ALIASES = {
    "src": "source",
    "dst": "target",
    "destination": "target",
    "ro": "readonly",
    "rw": "readwrite",
}
_TEXTS = ("type", "from", "source", "target", "id", "sharing", "env", "size")
_NUMBERS = ("mode", "uid", "gid")
_SWITCHES = ("readonly", "readwrite", "required")
_KEYS = _TEXTS + _NUMBERS + _SWITCHES
_OWNED = ("secret", "ssh", "cache")  # types that take mode, uid and gid
_ONLY = {
    "required": ("secret", "ssh"),
    "size": ("tmpfs",),
    "sharing": ("cache",),
    "env": ("secret",),
    "mode": _OWNED,
    "uid": _OWNED,
    "gid": _OWNED,
}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtp]?)i?b?", re.IGNORECASE | re.ASCII)
_TRUE = ("1", "t", "true")
_FALSE = ("0", "f", "false")


@dataclass(frozen=True, slots=True)
class Mount:
    """`size` in bytes (tmpfs), `mode` a number; None and "" are what the type's default is.

    `id` is a cache's, secret's or ssh agent's; `env` the variable a secret is put into.
    """

    type: str = "bind"
    source: str = ""
    target: str = ""
    from_: str = ""
    readonly: bool = True
    id: str = ""
    sharing: str = ""
    required: bool = False
    size: int | None = None
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    env: str = ""


def parse_mount(text: str, put: Callable[[str], str] = str) -> Mount:
    """Read `type=cache,target=/root/.npm`; `put` expands each value. Raises InvalidInput."""
    options = {key: put(value) for key, value in _options(text).items()}
    kind = options.get("type", "bind").lower()
    if kind not in TYPES:
        raise InvalidInput(
            f"an unknown type of mount: {kind}",
            hint=did_you_mean(kind, TYPES) or f"types are {', '.join(TYPES)}",
        )
    for key, types in _ONLY.items():
        if key in options and kind not in types:
            raise InvalidInput(
                f"a {kind} mount takes no {key}",
                hint=f"{key} is for mounts of type {', '.join(types)}",
            )
    sharing = options.get("sharing", "").lower()
    if "sharing" in options and sharing not in SHARING:
        raise InvalidInput(
            f"an unknown way of sharing: {sharing}", hint=f"write one of {', '.join(SHARING)}"
        )
    mount = Mount(
        type=kind,
        source=options.get("source", ""),
        target=options.get("target", ""),
        from_=options.get("from", ""),
        readonly=_readonly(options, kind),
        id=options.get("id", ""),
        sharing=sharing,
        required=_switch(options, "required") or False,
        size=_size(options["size"]) if "size" in options else None,
        mode=_number(options, "mode", 8),
        uid=_number(options, "uid", 10),
        gid=_number(options, "gid", 10),
        env=options.get("env", ""),
    )
    _check(mount)
    return mount


def _options(text: str) -> dict[str, str]:
    try:
        fields = next(csv.reader([text], strict=True), [])
    except csv.Error as error:
        raise InvalidInput(
            f"the mount cannot be read: {text}: {error}", hint="check its quotes and commas"
        ) from error
    options: dict[str, str] = {}
    for field in fields:
        name, equals, value = field.partition("=")
        key = _ALIASES.get(name.lower(), name.lower())
        if key not in _KEYS:
            raise InvalidInput(
                f"a mount has no option {name}",
                hint=did_you_mean(key, _KEYS) or f"options are {', '.join(_KEYS)}",
            )
        if not equals and key not in _SWITCHES:
            raise InvalidInput(f"{name} has no value", hint=f"write {name}=value")
        options[key] = value if equals else "true"
    return options


def _check(mount: Mount) -> None:
    if mount.type in ("bind", "cache", "tmpfs") and not mount.target:
        raise InvalidInput(f"a {mount.type} mount needs a target", hint="add target=/a/path")
    if mount.type == "secret":
        if mount.from_:
            raise InvalidInput("a secret mount takes no from", hint="secrets come with the build")
        if not (mount.source or mount.target or mount.id):
            raise InvalidInput("a secret mount needs an id", hint="add id=NAME")
        if mount.source and mount.id:
            raise InvalidInput("a secret mount takes id or source, not both", hint="keep id")


def _readonly(options: dict[str, str], kind: str) -> bool:
    readonly, readwrite = _switch(options, "readonly"), _switch(options, "readwrite")
    if readonly is not None:
        return readonly
    if readwrite is not None:
        return not readwrite
    return kind not in ("cache", "tmpfs")


def _switch(options: dict[str, str], key: str) -> bool | None:
    value = options.get(key)
    if value is None:
        return None
    if value.lower() not in _TRUE + _FALSE:
        raise InvalidInput(f"{key} is neither true nor false: {value}", hint=f"write {key}=true")
    return value.lower() in _TRUE


def _number(options: dict[str, str], key: str, base: int) -> int | None:
    value = options.get(key)
    if value is None:
        return None
    digits = "01234567" if base == 8 else "0123456789"
    if not value or value.strip(digits) or len(value) > 11 or int(value, base) >= 1 << 32:
        kind = "an octal number, like 0755" if base == 8 else "a whole number"
        raise InvalidInput(f"{key} is not {kind}: {value}", hint=f"write {key} as {kind}")
    return int(value, base)


def _size(text: str) -> int:
    match = _SIZE.fullmatch(text)
    if match is None:
        raise InvalidInput(f"not a size: {text}", hint="write it like 64m or 1g")
    return int(float(match[1]) * 1024 ** " kmgtp".index(match[2].lower() or " "))
