"""Platform: operating system and architecture; which image of an index suits this machine.

Names are Go's (amd64, arm64), with containerd's normalisation and its order of fallbacks. Leaves
running an image of another architecture to whoever set binfmt_misc up.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from engine.errors import InvalidInput
from engine.oci.fields import JSON, Fields

_ARCHITECTURES = {
    "x86_64": "amd64",
    "x86-64": "amd64",
    "aarch64": "arm64",
    "i386": "386",
    "i486": "386",
    "i586": "386",
    "i686": "386",
    "armhf": "arm",
    "armel": "arm",
    "armv8l": "arm",
    "armv7l": "arm",
    "armv6l": "arm",
    "armv5l": "arm",
    "loongarch64": "loong64",
}
_VARIANTS = {"armel": "v6", "armv6l": "v6", "armv5l": "v5"}
_PART = re.compile(r"[A-Za-z0-9_.-]+")


@dataclass(frozen=True, slots=True)
class Platform:
    """`os`/`architecture`/`variant`, as written (normalise with `normalized`)."""

    architecture: str
    os: str = "linux"
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()
    extra: Mapping[str, JSON] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Read `linux/arm64/v8`, or an architecture alone, normalised. Raises InvalidInput."""
        parts = text.split("/")
        if len(parts) > 3 or not all(_PART.fullmatch(part) for part in parts):
            raise InvalidInput(
                f"not a platform: {text[:100]!r}",
                hint="write os/architecture or os/architecture/variant, like linux/amd64",
                platform=text[:100],
            )
        if len(parts) == 1:
            return cls(parts[0]).normalized()
        return cls(parts[1], parts[0], parts[2] if len(parts) == 3 else "").normalized()

    @classmethod
    def read(cls, fields: Fields) -> Platform:
        """Of a descriptor's `platform` object. Raises ContentCorrupt."""
        platform = cls.read_inline(fields)
        return cls(
            architecture=platform.architecture,
            os=platform.os,
            variant=platform.variant,
            os_version=platform.os_version,
            os_features=platform.os_features,
            extra=fields.rest(),
        )

    @classmethod
    def read_inline(cls, fields: Fields) -> Platform:
        """Of an image config, where these keys stand among others."""
        return cls(
            architecture=fields.string("architecture"),
            os=fields.string("os"),
            variant=fields.string("variant", ""),
            os_version=fields.string("os.version", ""),
            os_features=fields.strings("os.features") or (),
        )

    def to_dict(self) -> dict[str, JSON]:
        document: dict[str, JSON] = {
            **self.extra,
            "architecture": self.architecture,
            "os": self.os,
        }
        if self.variant:
            document["variant"] = self.variant
        if self.os_version:
            document["os.version"] = self.os_version
        if self.os_features:
            document["os.features"] = list(self.os_features)
        return document

    def normalized(self) -> Platform:
        """Go's names, variants that are the default dropped: containerd's Normalize."""
        name = self.architecture.lower()
        architecture = _ARCHITECTURES.get(name, name)
        variant = self.variant.lower() or _VARIANTS.get(name, "")
        if variant[:1].isdigit():
            variant = f"v{variant}"
        if (architecture, variant) in (("arm64", "v8"), ("amd64", "v1")):
            variant = ""
        elif architecture == "arm" and not variant:
            variant = "v8" if name == "armv8l" else "v7"
        return Platform(architecture, self.os.lower(), variant, self.os_version, self.os_features)

    def __str__(self) -> str:
        parts = (self.os, self.architecture, self.variant)
        return "/".join(part for part in parts if part)


@cache
def host() -> Platform:
    """This machine's."""
    system = os.uname()
    return Platform(system.machine, system.sysname.lower()).normalized()


def matches(offered: Platform, wanted: Platform) -> bool:
    """Whether an image for `offered` runs where `wanted` is asked for."""
    return key(offered) in candidates(wanted)


def key(platform: Platform) -> tuple[str, str, str]:
    """(os, architecture, variant), normal: what two platforms are compared by."""
    normal = platform.normalized()
    return normal.os, normal.architecture, normal.variant


def candidates(wanted: Platform) -> list[tuple[str, str, str]]:
    """What runs on `wanted`, best first: containerd's platformVector."""
    system, architecture, variant = key(wanted)
    level = int(variant[1:]) if re.fullmatch(r"v\d{1,2}", variant) else 0
    found = [(system, architecture, variant)]
    if architecture == "amd64":
        found += [(system, "amd64", f"v{n}" if n > 1 else "") for n in range(level - 1, 0, -1)]
        found.append((system, "386", ""))
    elif architecture == "arm64":
        if variant:
            found.append((system, "arm64", ""))
        found += [(system, "arm", f"v{n}") for n in range(8, 4, -1)]
    elif architecture == "arm":
        found += [(system, "arm", f"v{n}") for n in range(level - 1, 4, -1)]
    return found
