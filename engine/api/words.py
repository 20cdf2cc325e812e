"""Times and states of containers as Docker writes them for people. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from engine.models import Container

ZERO = "0001-01-01T00:00:00Z"
_State = Container.State


def timestamp(at: datetime | None) -> str:
    """RFC 3339 with as many digits as are needed, as Go's RFC3339Nano; None is Go's zero."""
    if at is None:
        return ZERO
    text = at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")
    fraction = f".{at.microsecond:06d}".rstrip("0") if at.microsecond else ""
    return f"{text}{fraction}Z"


def duration(span: timedelta) -> str:
    """go-units' HumanDuration: `3 minutes`, `About an hour`."""
    seconds = int(span.total_seconds())
    minutes, hours = seconds // 60, int(span.total_seconds() / 3600 + 0.5)
    if seconds < 1:
        return "Less than a second"
    if seconds == 1:
        return "1 second"
    if seconds < 60:
        return f"{seconds} seconds"
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    for most, size, unit in (
        (24 * 7 * 2, 24, "days"),
        (24 * 30 * 2, 24 * 7, "weeks"),
        (24 * 365 * 2, 24 * 30, "months"),
    ):
        if hours < most:
            return f"{hours // size} {unit}"
    return f"{seconds // 3600 // 24 // 365} years"


def status(
    state: str,
    *,
    now: datetime,
    started_at: datetime | None,
    finished_at: datetime | None,
    exit_code: int | None,
    health: Mapping[str, Any] | None,
) -> str:
    """The STATUS column of `docker ps` (moby container/state.go String)."""
    up = f"Up {duration(now - (started_at or now))}"
    if state == _State.PAUSED:
        return f"{up} (Paused)"
    if state == _State.RUNNING:
        shown = health_word(health)
        return f"{up} ({shown})" if shown else up
    ago = f"({exit_code or 0}) {duration(now - (finished_at or now))} ago"
    if state == _State.RESTARTING:
        return f"Restarting {ago}"
    if state == _State.REMOVING:
        return "Removal In Progress"
    if state == _State.DEAD:
        return "Dead"
    if started_at is None:
        return "Created"
    return f"Exited {ago}"


def health_word(health: Mapping[str, Any] | None) -> str:
    """`healthy`, `unhealthy`, `health: starting`; "" without a health check."""
    word = str((health or {}).get("status") or "")
    if word in ("", "none"):
        return ""
    return "health: starting" if word == "starting" else word


def command(args: Sequence[str]) -> str:
    """The COMMAND column: arguments with a space in quotes, the program as it is."""
    return " ".join([*args[:1], *(f"'{arg}'" if " " in arg else arg for arg in args[1:])])


_SPAN = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|h|m|s)")
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6}
_SECONDS["ns"] = 1e-9


def go_duration(text: str) -> timedelta | None:
    """`1h30m`, `10s`; None for anything else."""
    body = text[1:] if text[:1] in ("-", "+") else text
    parts = _SPAN.findall(body)
    if not parts or "".join(number + unit for number, unit in parts) != body:
        return None
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    return timedelta(seconds=-seconds if text.startswith("-") else seconds)


_DATE = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:T(\d\d:\d\d(?::\d\d)?|\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)?)?(Z|[+-]\d\d:\d\d)?"
)


def point(text: str, now: datetime) -> datetime | None:
    """A moment as `since` and `until` have it: seconds since 1970 with a fraction, RFC 3339 or a
    beginning of it, or a duration back from `now`. None for anything else."""
    if re.fullmatch(r"-?\d+(\.\d+)?", text):
        whole, _, fraction = text.partition(".")
        if len(whole) > 11:
            return None
        micros = int((fraction + "000000")[:6])
        return datetime.fromtimestamp(int(whole), UTC) + timedelta(microseconds=micros)
    span = go_duration(text)
    if span is not None:
        return now - span
    found = _DATE.fullmatch(text)
    if found is None:
        return None
    day, clock, fraction, zone, other = found.groups()
    clock = {2: f"{clock}:00:00", 5: f"{clock}:00"}.get(len(clock or ""), clock or "00:00:00")
    zone = (zone or other or "Z").replace("Z", "+00:00")
    try:
        return datetime.fromisoformat(
            f"{day}T{clock}{(fraction or '')[:7].ljust(7, '0') if fraction else ''}{zone}"
        )
    except ValueError:
        return None
