"""What two readings of a container say together: figures a second, as `docker stats` counts them.

Pure. The reading itself is engine.containers.stats; who looks, and how often, is not known here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace

from engine.containers.stats import BlockIO, Sample, machine_memory

_Number = int | float | bool | None


@dataclass(frozen=True, slots=True)
class Usage:
    """`at` milliseconds since 1970. Bytes, and bytes a second for what ends in `_rate`.

    `cpu` percent of one processor: 200 is two of them. It and the rates are None where there is no
    reading before. `received`, `sent`, `read` and `written` count from the container's start.
    `limited` False: `limit` is the machine's memory. `pids_limit` None is none.
    """

    at: int
    cpu: float | None
    memory: int
    limit: int
    limited: bool
    pids: int
    pids_limit: int | None
    received: int
    sent: int
    read: int
    written: int
    received_rate: float | None = None
    sent_rate: float | None = None
    read_rate: float | None = None
    written_rate: float | None = None

    def to_json(self) -> dict[str, _Number]:
        return asdict(self)


def usage(now: Sample, before: Sample | None = None) -> Usage:
    """`before` must be of the same run of the container."""
    memory = now.memory
    found = Usage(
        at=round(now.read_at.timestamp() * 1000),
        cpu=None,
        memory=memory.used,
        limit=memory.limit,
        limited=memory.limit < machine_memory(),
        pids=now.pids,
        pids_limit=now.pids_limit,
        received=sum(one.get("rx_bytes", 0) for one in now.networks.values()),
        sent=sum(one.get("tx_bytes", 0) for one in now.networks.values()),
        read=_moved(now.bytes, "r"),
        written=_moved(now.bytes, "w"),
    )
    if before is None or now.read_at <= before.read_at:
        return found
    had = usage(before)
    seconds = (now.read_at - before.read_at).total_seconds()
    return replace(
        found,
        cpu=_cpu(now, before),
        received_rate=_rate(found.received - had.received, seconds),
        sent_rate=_rate(found.sent - had.sent, seconds),
        read_rate=_rate(found.read - had.read, seconds),
        written_rate=_rate(found.written - had.written, seconds),
    )


def _rate(more: int, seconds: float) -> float:
    """An interface that was taken away takes its counts along: that is no negative traffic."""
    return max(0.0, round(more / seconds, 1))


def _cpu(now: Sample, before: Sample) -> float:
    """docker/cli container/stats_helpers.go calculateCPUPercentUnix."""
    mine = now.cpu.total - before.cpu.total
    machine = now.cpu.system - before.cpu.system
    if mine <= 0 or machine <= 0:
        return 0.0
    return round(mine / machine * now.cpu.online * 100, 2)


def _moved(found: Iterable[BlockIO], letter: str) -> int:
    """calculateBlockIO of the same file: by the operation's first letter."""
    return sum(one.value for one in found if one.operation[:1].lower() == letter)
