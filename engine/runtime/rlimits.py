"""setrlimit(2) for a container's processes, never beyond what we may give."""

from __future__ import annotations

import resource
from dataclasses import dataclass
from typing import Any

from engine.errors import InvalidInput
from engine.runtime import capabilities

UNLIMITED = -1
_INFINITY = 2**64 - 1
# As containerd's units: programs that need more raise their own soft limit.
_NOFILE = (1024, 524288)
# docker/go-units ulimit.go; `locks` is not in Python's module.
_NUMBERS = {
    "core": resource.RLIMIT_CORE,
    "cpu": resource.RLIMIT_CPU,
    "data": resource.RLIMIT_DATA,
    "fsize": resource.RLIMIT_FSIZE,
    "locks": 10,
    "memlock": resource.RLIMIT_MEMLOCK,
    "msgqueue": resource.RLIMIT_MSGQUEUE,
    "nice": resource.RLIMIT_NICE,
    "nofile": resource.RLIMIT_NOFILE,
    "nproc": resource.RLIMIT_NPROC,
    "rss": resource.RLIMIT_RSS,
    "rtprio": resource.RLIMIT_RTPRIO,
    "rttime": resource.RLIMIT_RTTIME,
    "sigpending": resource.RLIMIT_SIGPENDING,
    "stack": resource.RLIMIT_STACK,
}


@dataclass(frozen=True, slots=True)
class Ulimit:
    """setrlimit(2); `name` without RLIMIT_ and in small letters (nofile); -1 is unlimited."""

    name: str
    soft: int
    hard: int

    def check(self) -> None:
        """Raises InvalidInput."""
        if self.name not in _NUMBERS:
            raise InvalidInput(
                f"invalid ulimit type: {self.name}",
                hint=f"choose one of {', '.join(_NUMBERS)}",
                field="ulimits",
            )
        if min(self.soft, self.hard) < UNLIMITED or _size(self.soft) > _size(self.hard):
            raise InvalidInput(
                f"ulimit soft limit must be less than or equal to hard limit: {self.name}="
                f"{self.soft}:{self.hard}",
                hint="write it soft:hard",
                field="ulimits",
            )


def rlimits(ulimits: tuple[Ulimit, ...]) -> list[dict[str, Any]]:
    """config.json's `process.rlimits`: ours and `ulimits` over them. Raises InvalidInput."""
    wanted = {"nofile": Ulimit("nofile", *_NOFILE)}
    for ulimit in ulimits:
        ulimit.check()
        wanted[ulimit.name] = ulimit
    return [_entry(ulimit) for ulimit in wanted.values()]


def _entry(ulimit: Ulimit) -> dict[str, Any]:
    soft, hard = _size(ulimit.soft), _size(ulimit.hard)
    if "CAP_SYS_RESOURCE" not in capabilities.bounding():
        # Without it nobody raises a hard limit: the runtime would fail.
        most = _size(resource.getrlimit(_NUMBERS[ulimit.name])[1])
        soft, hard = min(soft, most), min(hard, most)
    return {"type": f"RLIMIT_{ulimit.name.upper()}", "soft": soft, "hard": hard}


def _size(value: int) -> int:
    return _INFINITY if value == UNLIMITED else value
