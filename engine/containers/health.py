"""Health checks: what a probe runs and when, and what its result makes of the status. Pure.

moby's rules (daemon/health.go): starting until the first success or `retries` failures in a row;
failures within the start period do not count; the last five results are kept with 4 KiB of output
each. Leaves running probes to engine.services.work.health.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from engine.oci import Healthcheck

STARTING, HEALTHY, UNHEALTHY = "starting", "healthy", "unhealthy"
MAX_OUTPUT = 4096
KEPT = 5
# What a probe that took too long is written down with.
TIMED_OUT = -1
_INTERVAL, _TIMEOUT, _START_INTERVAL, _RETRIES = 30.0, 30.0, 5.0, 3
_DEFAULT_SHELL = ("/bin/sh", "-c")


@dataclass(frozen=True, slots=True)
class Probe:
    """A container's check with its defaults put in; times in seconds."""

    argv: tuple[str, ...]
    interval: float = _INTERVAL
    timeout: float = _TIMEOUT
    start_period: float = 0.0
    start_interval: float = _START_INTERVAL
    retries: int = _RETRIES

    @classmethod
    def of(cls, check: Healthcheck | None, shell: Sequence[str] = ()) -> Probe | None:
        """None where there is nothing to run. `shell` is the image's own, for CMD-SHELL."""
        kind, *words = (check.test or ("NONE",)) if check is not None else ("NONE",)
        if check is None or kind not in ("CMD", "CMD-SHELL") or not words:
            return None
        argv = tuple(words) if kind == "CMD" else (*(shell or _DEFAULT_SHELL), words[0])
        return cls(
            argv=argv,
            interval=_seconds(check.interval, _INTERVAL),
            timeout=_seconds(check.timeout, _TIMEOUT),
            start_period=_seconds(check.start_period, 0.0),
            start_interval=_seconds(check.start_interval, _START_INTERVAL),
            retries=check.retries or _RETRIES,
        )

    def wait(self, status: str, since_start: float) -> float:
        """Seconds from one probe's end (or the start) to the next."""
        if status == STARTING and since_start < self.start_period:
            return self.start_interval
        return self.interval


@dataclass(frozen=True, slots=True)
class Result:
    """One probe as it went; `code` is TIMED_OUT where it had to be ended."""

    start: datetime
    end: datetime
    code: int
    output: str

    def to_json(self) -> dict[str, Any]:
        return {
            "start": self.start.isoformat(),
            "end": self.end.isoformat(),
            "exit_code": self.code,
            "output": self.output[:MAX_OUTPUT],
        }


def begun(before: Mapping[str, Any] | None, check: Healthcheck | None) -> dict[str, Any] | None:
    """Container.health at a start; the results of runs before stay readable. None without one."""
    if Probe.of(check) is None:
        return None
    log = list(before.get("log", ())) if before else []
    return {"status": STARTING, "failing_streak": 0, "log": log}


def ended(before: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """At the container's end: unhealthy, as Docker has it of what is not looked at any more."""
    return {**before, "status": UNHEALTHY} if before else None


def after(
    before: Mapping[str, Any], probe: Probe, result: Result, since_start: float
) -> dict[str, Any]:
    """Container.health once the result is in. `since_start`: seconds from the container's start
    to the probe's."""
    status, streak = str(before.get("status", STARTING)), int(before.get("failing_streak", 0))
    if result.code == 0:
        status, streak = HEALTHY, 0
    elif status != STARTING or since_start >= probe.start_period:
        streak += 1
        if streak >= probe.retries:
            status = UNHEALTHY
    log = [*before.get("log", ()), result.to_json()][-KEPT:]
    return {"status": status, "failing_streak": streak, "log": log}


def _seconds(nanoseconds: int, default: float) -> float:
    return nanoseconds / 10**9 if nanoseconds else default
