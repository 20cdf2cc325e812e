"""Go's durations (`1m30s`, `500ms`), which HEALTHCHECK's flags are written in."""

from __future__ import annotations

import re
from decimal import Decimal

from engine.errors import InvalidInput

_UNITS = {
    "ns": 1,
    "us": 1_000,
    "\u00b5s": 1_000,
    "\u03bcs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|\u00b5s|\u03bcs|ms|s|m|h)", re.ASCII)
_MAX = 2**63 - 1


def parse_duration(text: str) -> int:
    """Nanoseconds. Raises InvalidInput with a hint."""
    total, position = Decimal(0), 0
    digits = text.removeprefix("+")
    if digits == "0":
        return 0
    while match := _PART.match(digits, position):
        total += Decimal(match[1]) * _UNITS[match[2]]
        position = match.end()
    if not digits or position != len(digits) or total > _MAX:
        raise InvalidInput(
            f"not a duration: {text}",
            hint=f"write {text}s for seconds" if text.isdecimal() else "write it like 30s or 1m30s",
        )
    return int(total)
