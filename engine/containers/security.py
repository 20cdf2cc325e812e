"""`--security-opt`, as moby's daemon reads it (daemon_unix.go parseSecurityOpt)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from engine.errors import InvalidInput, Unsupported

_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})


@dataclass(frozen=True, slots=True)
class Security:
    """`seccomp` None is the default profile, "" none, else a profile's JSON. `apparmor` is the
    name of a profile, "" for none."""

    no_new_privileges: bool = False
    seccomp: str | None = None
    apparmor: str = ""


_DEFAULT = Security()


def security(options: Iterable[str]) -> Security:
    """Raises InvalidInput, and Unsupported for labels where SELinux is on."""
    if not options:
        return _DEFAULT
    no_new_privileges, seccomp, apparmor = False, None, ""
    for option in options:
        if option == "no-new-privileges":
            no_new_privileges = True
            continue
        if option == "disable":
            continue
        separator = "=" if "=" in option else ":"
        key, found, value = option.partition(separator)
        if not found:
            raise _wrong(1, option)
        if key == "no-new-privileges" and value in _TRUE | _FALSE:
            no_new_privileges = value in _TRUE
        elif key == "seccomp":
            seccomp = _seccomp(value)
        elif key == "apparmor":
            apparmor = value if has_apparmor() and value != "unconfined" else ""
        elif key == "label":
            # Without SELinux they mean nothing, there as here.
            if _has_selinux() and value != "disable":
                raise Unsupported(
                    "SELinux labels are not supported", hint="leave the label option out"
                )
        else:
            raise _wrong(2, option)
    return Security(no_new_privileges, seccomp, apparmor)


@cache
def has_apparmor() -> bool:
    """moby (containerd pkg/apparmor): the kernel has it, and it is switched on."""
    switch = Path("/sys/module/apparmor/parameters/enabled")
    try:
        return Path("/sys/kernel/security/apparmor").exists() and switch.read_text()[:1] == "Y"
    except OSError:
        return False


@cache
def _has_selinux() -> bool:
    return Path("/sys/fs/selinux/enforce").exists()


def _seccomp(value: str) -> str | None:
    if value == "unconfined":
        return ""
    if value in ("builtin", "default"):
        return None
    try:
        is_profile = isinstance(json.loads(value), dict)
    except ValueError:
        is_profile = False
    if not is_profile:
        raise InvalidInput(
            "decoding seccomp profile failed: not a JSON object",
            hint="give the profile's text, or unconfined",
            field="security_opt",
        )
    return value


def _wrong(number: int, option: str) -> InvalidInput:
    return InvalidInput(
        f'invalid --security-opt {number}: "{option}"',
        hint="see no-new-privileges, seccomp, apparmor and label in docker run's manual",
        field="security_opt",
    )
