"""The default seccomp profile, resolved for one architecture and one set of capabilities.

The profile is the field's own (containers-common's seccomp.json): rules in it say for which
architectures and capabilities they hold, the OCI spec knows only the outcome. It lets every
container make namespaces and mounts, for podman inside podman; Docker's does not, and neither
does ours: user namespaces are the kernel's widest door.
A profile somebody gives is taken as it is, without the tightening.
"""

from __future__ import annotations

import json
import platform
from functools import lru_cache
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from engine.errors import InvalidInput, RuntimeFailed

DEFAULT_PROFILE = Path("/usr/share/containers/seccomp.json")

# GOARCH's names, which the profile uses in `arches`, and libseccomp's, by uname's machine.
_ARCHITECTURES = {
    "x86_64": ("amd64", "SCMP_ARCH_X86_64"),
    "aarch64": ("arm64", "SCMP_ARCH_AARCH64"),
    "ppc64le": ("ppc64le", "SCMP_ARCH_PPC64LE"),
    "riscv64": ("riscv64", "SCMP_ARCH_RISCV64"),
    "s390x": ("s390x", "SCMP_ARCH_S390X"),
}
# Compiling the filter is the larger half of a start, and x32 is a third of it (10 of 40 ms).
# No distribution's kernel runs x32; left out of the list, its calls are refused all the same.
_LEFT_OUT = frozenset({"SCMP_ARCH_X32"})

# moby profiles/seccomp/default_linux.go: allowed with one of these capabilities only.
_NAMESPACES = """
    fsconfig fsmount fsopen fspick mount mount_setattr move_mount open_tree pivot_root setns
    umount umount2 unshare keyctl add_key request_key
"""
_NEEDS: dict[str, frozenset[str]] = {
    **dict.fromkeys(_NAMESPACES.split(), frozenset({"CAP_SYS_ADMIN"})),
    **dict.fromkeys(
        ("get_mempolicy", "mbind", "set_mempolicy"), frozenset({"CAP_SYS_ADMIN", "CAP_SYS_NICE"})
    ),
    "syslog": frozenset({"CAP_SYS_ADMIN", "CAP_SYSLOG"}),
    "reboot": frozenset({"CAP_SYS_BOOT"}),
}
# All CLONE_NEW* flags but CLONE_NEWTIME, which shares its bit with an exit signal's number.
_CLONE_NAMESPACES = 0x7E020000
_EPERM, _ENOSYS = 1, 38
_ARGUMENT = ("index", "value", "valueTwo", "op")


class Condition(TypedDict, total=False):
    """When a rule of the profile holds; both lists may be missing."""

    arches: list[str]
    caps: list[str]


class Rule(TypedDict):
    """OCI runtime-spec config-linux.md, seccomp.syscalls."""

    names: list[str]
    action: str
    args: list[dict[str, int | str]]
    errnoRet: NotRequired[int]


class LinuxSeccomp(TypedDict, total=False):
    """OCI runtime-spec config-linux.md, linux.seccomp."""

    defaultAction: str
    defaultErrnoRet: int
    architectures: list[str]
    syscalls: list[Rule]


def default_profile(
    capabilities: tuple[str, ...], *, path: Path = DEFAULT_PROFILE, machine: str = ""
) -> LinuxSeccomp:
    """The profile at `path` for `capabilities` on `machine` (uname's; this one's when empty).

    The value is shared between callers: MUST NOT be changed. Raises RuntimeFailed when the file
    is missing or not understood: a container never starts without its filter.
    """
    try:
        stamp = path.stat().st_mtime_ns
        return _resolve(path, stamp, capabilities, machine or platform.machine())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RuntimeFailed(
            f"the seccomp profile cannot be used: {path}: {error}",
            hint="install Debian's golang-github-containers-common",
            path=str(path),
        ) from error


@lru_cache(maxsize=32)
def _resolve(path: Path, stamp: int, capabilities: tuple[str, ...], machine: str) -> LinuxSeccomp:
    goarch = _ARCHITECTURES.get(machine, (machine, ""))[0]
    resolved = _resolved(json.loads(path.read_bytes()), capabilities, machine)
    return {**resolved, "syscalls": _tightened(resolved["syscalls"], goarch, set(capabilities))}


@lru_cache(maxsize=32)
def given_profile(text: str, capabilities: tuple[str, ...], machine: str = "") -> LinuxSeccomp:
    """A profile in Docker's or the OCI's JSON; shared between callers. Raises InvalidInput."""
    try:
        return _resolved(json.loads(text), capabilities, machine or platform.machine())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInput(
            f"decoding seccomp profile failed: {error}",
            hint="give a profile as Docker's documentation describes it",
            field="security_opt",
        ) from error


def _resolved(profile: dict[str, Any], capabilities: tuple[str, ...], machine: str) -> LinuxSeccomp:
    goarch, native = _ARCHITECTURES.get(machine, (machine, ""))
    architectures = list(profile.get("architectures") or ([native] if native else []))
    for entry in profile.get("archMap") or ():
        if entry["architecture"] == native:
            architectures += [
                name for name in entry.get("subArchitectures") or () if name not in _LEFT_OUT
            ]
    held = set(capabilities)
    rules: list[Rule] = []
    for entry in profile.get("syscalls") or ():
        includes: Condition = entry.get("includes") or Condition()
        excludes: Condition = entry.get("excludes") or Condition()
        if not _applies(includes, excludes, goarch, held):
            continue
        rule: Rule = {
            "names": entry.get("names") or [entry["name"]],
            "action": entry["action"],
            "args": [
                {"valueTwo": 0, **{key: arg[key] for key in _ARGUMENT if key in arg}}
                for arg in entry.get("args") or ()
            ],
        }
        if entry.get("errnoRet") is not None:
            rule["errnoRet"] = entry["errnoRet"]
        rules.append(rule)
    resolved: LinuxSeccomp = {
        "defaultAction": profile["defaultAction"],
        "architectures": architectures,
        "syscalls": rules,
    }
    if profile.get("defaultErrnoRet") is not None:
        resolved["defaultErrnoRet"] = profile["defaultErrnoRet"]
    return resolved


def _tightened(rules: list[Rule], goarch: str, held: set[str]) -> list[Rule]:
    """Take back what Docker's profile gives to CAP_SYS_ADMIN and the like alone."""
    refused = {name for name, needs in _NEEDS.items() if not needs & held}
    extra: list[Rule] = []
    if refused:
        names = sorted(refused)
        extra.append({"names": names, "action": "SCMP_ACT_ERRNO", "args": [], "errnoRet": _EPERM})
    if "CAP_SYS_ADMIN" not in held:
        refused |= {"clone", "clone3"}
        plain: dict[str, int | str] = {
            "index": 1 if goarch == "s390x" else 0,
            "value": _CLONE_NAMESPACES,
            "valueTwo": 0,
            "op": "SCMP_CMP_MASKED_EQ",
        }
        extra.append({"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [plain]})
        # Its flags lie in memory, out of a filter's sight: libraries fall back to clone.
        extra.append(
            {
                "names": ["clone3"],
                "action": "SCMP_ACT_ERRNO",
                "args": [],
                "errnoRet": _ENOSYS,
            }
        )
    kept: list[Rule] = []
    for rule in rules:
        left = rule.copy()
        left["names"] = [name for name in rule["names"] if name not in refused]
        if left["names"]:
            kept.append(left)
    return kept + extra


def _applies(includes: Condition, excludes: Condition, goarch: str, held: set[str]) -> bool:
    """containers-common pkg/seccomp/seccomp_linux.go: every include holds, no exclude does."""
    if includes.get("arches") and goarch not in includes["arches"]:
        return False
    if excludes.get("arches") and goarch in excludes["arches"]:
        return False
    if not held.issuperset(includes.get("caps") or ()):
        return False
    return not held.intersection(excludes.get("caps") or ())
