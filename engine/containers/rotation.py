"""Keeps logs small: a new part for each that is full, as its container asked for or as all do."""

from __future__ import annotations

import re

from engine.config import EngineConfig
from engine.containers.layout import ContainerDir
from engine.containers.logs import DEFAULT_LIMITS, Limits, rotate
from engine.containers.options import LogConfig
from engine.containers.settings import ContainerSettings
from engine.errors import InvalidInput

# docker/go-units RAMInBytes.
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)
_UNITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}


def limits_of(log: LogConfig, default: Limits = DEFAULT_LIMITS) -> Limits:
    """max-size and max-file of a log's options. Raises InvalidInput."""
    size, count = log.options.get("max-size", "-1"), log.options.get("max-file", "")
    part_bytes, parts = default.part_bytes, default.parts
    if size != "-1":
        found = _SIZE.fullmatch(size)
        part_bytes = int(float(found[1]) * (1 << _UNITS[found[2].lower()])) if found else 0
        if part_bytes <= 0:
            raise InvalidInput(f"invalid size: '{size}'", hint="write it like 10m", field="log")
    if count:
        if not (count.isascii() and count.isdecimal() and int(count) > 0):
            raise InvalidInput("max-file cannot be less than 1", field="log")
        parts = int(count)
    return Limits(part_bytes, parts)


class Rotation:
    """For a timer of seconds. A look at a log costs some 20 microseconds; needs no lock."""

    def __init__(self, config: EngineConfig) -> None:
        self._config = config
        # By id: when its settings were written, the default then, and what they say of the log.
        self._known: dict[str, tuple[int, Limits, Limits]] = {}

    def rotate(self, ids: list[str], default: Limits = DEFAULT_LIMITS) -> int:
        """Begin a new part of every log, execs' too, that is full; how many."""
        rotated, known = 0, {}
        for id in ids:
            directory = ContainerDir(self._config, id)
            try:
                known[id] = self._limits(directory, default)
            except FileNotFoundError:
                continue  # removed meanwhile
            for bundle, log in directory.logs():
                rotated += rotate(log, bundle, known[id][2])
        self._known = known
        return rotated

    def _limits(self, directory: ContainerDir, default: Limits) -> tuple[int, Limits, Limits]:
        written = directory.settings.stat().st_mtime_ns
        before = self._known.get(directory.id)
        if before is not None and before[:2] == (written, default):
            return before
        try:
            log = ContainerSettings.from_json(directory.settings.read_bytes()).host.log
            return written, default, limits_of(log, default)
        except InvalidInput:
            return written, default, default  # it must not grow for being misread
