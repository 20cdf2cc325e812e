"""What a build of the Docker API asks for that pages have no field for: labels, limits of its RUN
steps, hosts, a network, credentials for FROM. Kept as JSON with the build's operation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from engine.runtime.resources import Limits
from engine.runtime.rlimits import Ulimit


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """`network` is "" (the namespace's own), "none", or a network's name or id; `hosts` are (name,
    address); `cache_from` images, of which one must be here for the cache to be used at all, as
    with Docker; `auth` is {registry: key of engine.registry.credentials.hand_over}."""

    labels: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    ulimits: tuple[Ulimit, ...] = ()
    shm_bytes: int | None = None
    hosts: tuple[tuple[str, str], ...] = ()
    network: str = ""
    cache_from: tuple[str, ...] = ()
    auth: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Only what is not the default."""
        values = asdict(self)
        values["limits"] = {
            name: value for name, value in values["limits"].items() if value not in (None, "", 0)
        }
        return {name: value for name, value in values.items() if value}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> BuildOptions:
        return cls(
            labels={str(name): str(value) for name, value in data.get("labels", {}).items()},
            limits=Limits(**data.get("limits", {})),
            ulimits=tuple(Ulimit(**one) for one in data.get("ulimits", ())),
            shm_bytes=data.get("shm_bytes"),
            hosts=tuple((str(name), str(address)) for name, address in data.get("hosts", ())),
            network=str(data.get("network", "")),
            cache_from=tuple(map(str, data.get("cache_from", ()))),
            auth={str(name): str(key) for name, key in data.get("auth", {}).items()},
        )
