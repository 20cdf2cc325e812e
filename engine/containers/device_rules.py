"""Rules of the devices cgroup (`--device-cgroup-rule "c 7:* rmw"`), held against the ceiling.

A rule names devices by their numbers; a container may make such a node itself. So what a rule opens
must be within the ceiling's `devices`, as a device given by its path must.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.ceiling import Ceiling
from engine.errors import InvalidInput

# moby oci/oci.go deviceCgroupRuleRegex
_RULE = re.compile(r"([acb]) ([0-9]{1,9}|\*):([0-9]{1,9}|\*) ([rwm]{1,3})")
_FOLDERS = {"b": "block", "c": "char"}


@dataclass(frozen=True, slots=True)
class DeviceRule:
    """`type` a, b or c; numbers are None for any."""

    type: str
    major: int | None
    minor: int | None
    access: str

    @classmethod
    def parse(cls, text: str) -> DeviceRule:
        """Raises InvalidInput in moby's words."""
        found = _RULE.fullmatch(text)
        if found is None:
            raise InvalidInput(
                f"invalid device cgroup rule format: '{text}'",
                hint='write it like "c 7:* rmw"',
                field="device_rules",
            )
        major, minor = (None if part == "*" else int(part) for part in found.group(2, 3))
        return cls(found[1], major, minor, found[4])

    def as_oci(self) -> dict[str, Any]:
        """config-linux.md, an entry of resources.devices."""
        built: dict[str, Any] = {"allow": True, "type": self.type, "access": self.access}
        if self.major is not None:
            built["major"] = self.major
        if self.minor is not None:
            built["minor"] = self.minor
        return built


def check_rule(rule: DeviceRule, ceiling: Ceiling) -> None:
    """A rule for many devices needs the whole of /dev. Raises PolicyDenied."""
    ceiling.check_device(_path_of(rule) or "/dev")


def _path_of(rule: DeviceRule) -> str:
    """What the kernel calls the one device a rule means; "" for many, or for one not there."""
    if rule.major is None or rule.minor is None or rule.type not in _FOLDERS:
        return ""
    folder = Path("/sys/dev") / _FOLDERS[rule.type] / f"{rule.major}:{rule.minor}"
    try:
        lines = (folder / "uevent").read_text().splitlines()
    except OSError:
        return ""
    names = [line.removeprefix("DEVNAME=") for line in lines if line.startswith("DEVNAME=")]
    return f"/dev/{names[0]}" if names else ""
