"""Which Linux capabilities a container gets: Docker's defaults, cut to what we hold ourselves.

A capability outside our own bounding set cannot be given to anyone: runc fails on it, so every
set is intersected with it, `privileged` included. Leaves to spec.py where the sets are written.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path

from engine.errors import InvalidInput

# capability(7), in the kernel's order: the index is the bit in /proc/PID/status.
_NAMES = """
    CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
    NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO
    SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME
    SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG
    WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
"""
# moby oci/caps/defaults.go
_DEFAULT_NAMES = """
    CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP
    NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE
"""
ALL: tuple[str, ...] = tuple(f"CAP_{name}" for name in _NAMES.split())
DEFAULT: tuple[str, ...] = tuple(f"CAP_{name}" for name in _DEFAULT_NAMES.split())


@cache
def bounding() -> frozenset[str]:
    """Our own bounding set, by name; capabilities this list does not know yet are left out."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapBnd:"):
            mask = int(line.split()[1], 16)
            return frozenset(name for bit, name in enumerate(ALL) if mask >> bit & 1)
    return frozenset()


def normalise(name: str) -> str:
    """`net_admin`, `NET_ADMIN`, `CAP_NET_ADMIN` -> `CAP_NET_ADMIN`. Raises InvalidInput."""
    upper = name.strip().upper()
    full = upper if upper.startswith("CAP_") else f"CAP_{upper}"
    if full not in ALL:
        raise InvalidInput(
            f"no such capability: {name}", hint="see capability(7)", field="capability"
        )
    return full


def resolve(
    add: Iterable[str] = (), drop: Iterable[str] = (), *, privileged: bool = False
) -> tuple[str, ...]:
    """The set `docker run --cap-add --cap-drop` means, in the kernel's order, that we can give.

    `ALL` is a name in both lists; drop ALL with add NAME gives NAME alone. Raises InvalidInput.
    """
    added, dropped = list(add), list(drop)
    if privileged:
        wanted = set(ALL)
    else:
        wanted = set() if _all(dropped) else set(DEFAULT)
        if _all(added):
            wanted = set(ALL)
        wanted -= {normalise(name) for name in dropped if name.upper() != "ALL"}
        wanted |= {normalise(name) for name in added if name.upper() != "ALL"}
    held = bounding()
    return tuple(name for name in ALL if name in wanted and name in held)


def _all(names: Iterable[str]) -> bool:
    return any(name.upper() == "ALL" for name in names)
