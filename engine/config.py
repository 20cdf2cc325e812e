"""What the engine is told once, at start: where its state lies and which addresses it may use.

The engine core takes this value and never reads Django's settings or the environment itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from pathlib import Path

from engine.errors import InvalidInput

DEFAULT_HOME = Path("/var/lib/quayside")
DEFAULT_ADDRESS_POOL = IPv4Network("10.201.0.0/16")


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Folders below `home`, names derived from it, and what the environment asks for.

    `instance` (8 hex digits of the home's path) goes into every host-wide name (cgroup, nft
    table, bridge), so that two homes live on one machine without touching each other.
    """

    home: Path = DEFAULT_HOME
    address_pool: IPv4Network = DEFAULT_ADDRESS_POOL
    mirrors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    insecure_registries: frozenset[str] = frozenset()

    @property
    def instance(self) -> str:
        return hashlib.sha256(str(self.home).encode()).hexdigest()[:8]

    @property
    def content_dir(self) -> Path:
        """Blobs by digest (engine.content)."""
        return self.home / "content"

    @property
    def snapshots_dir(self) -> Path:
        """Unpacked layers and writable uppers (engine.snapshots)."""
        return self.home / "snapshots"

    @property
    def containers_dir(self) -> Path:
        """One folder a container: bundle, log, lock (engine.containers)."""
        return self.home / "containers"

    @property
    def exits_dir(self) -> Path:
        """One folder an attempt, `CONTAINER.GENERATION` or `exec.ID`: conmon's exit files."""
        return self.home / "exits"

    @property
    def volumes_dir(self) -> Path:
        """One folder a volume, by its key: `KEY/_data` (engine.containers.volumes)."""
        return self.home / "volumes"

    @property
    def builds_dir(self) -> Path:
        """One folder a build: its context and its log."""
        return self.home / "builds"

    @property
    def network_dir(self) -> Path:
        """What is on record of networks (engine.network.records)."""
        return self.home / "network"

    @property
    def names_dir(self) -> Path:
        """aardvark-dns's files: zones, and a folder for each of its servers."""
        return self.network_dir / "names"

    @property
    def run_dir(self) -> Path:
        """Sockets, pid files, the runtime's root: gone after a reboot."""
        return self.home / "run"

    @property
    def cgroup_parent(self) -> str:
        """The one cgroup all of this home's containers and RUN steps live under."""
        return f"quayside-{self.instance}"

    @property
    def nft_table(self) -> str:
        return f"quayside_{self.instance}"

    @property
    def bridge_prefix(self) -> str:
        """Up to 15 characters are allowed in an interface's name; this leaves six."""
        return f"qs{self.instance[:6]}-"

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> EngineConfig:
        """Read QUAYSIDE_HOME, _ADDRESS_POOL, _REGISTRY_MIRRORS and _INSECURE_REGISTRIES.

        Mirrors are `registry=url`, comma separated, several for one registry in order of use.
        Raises InvalidInput naming the variable.
        """
        pool = environ.get("QUAYSIDE_ADDRESS_POOL", "")
        try:
            address_pool = IPv4Network(pool) if pool else DEFAULT_ADDRESS_POOL
        except ValueError as error:
            raise InvalidInput(
                f"QUAYSIDE_ADDRESS_POOL is not an IPv4 network: {pool}",
                hint="write it like 10.201.0.0/16",
                field="QUAYSIDE_ADDRESS_POOL",
            ) from error
        if address_pool.prefixlen > 24:
            raise InvalidInput(
                f"QUAYSIDE_ADDRESS_POOL is too small: {pool}",
                hint="a /24 at least: every network takes one",
                field="QUAYSIDE_ADDRESS_POOL",
            )
        mirrors: dict[str, tuple[str, ...]] = {}
        for entry in _words(environ.get("QUAYSIDE_REGISTRY_MIRRORS", "")):
            registry, separator, url = entry.partition("=")
            if not separator or not url.startswith(("http://", "https://")):
                raise InvalidInput(
                    f"QUAYSIDE_REGISTRY_MIRRORS has an entry that is no mirror: {entry}",
                    hint="write it like docker.io=http://127.0.0.1:5000",
                    field="QUAYSIDE_REGISTRY_MIRRORS",
                )
            mirrors[registry] = (*mirrors.get(registry, ()), url.rstrip("/"))
        return cls(
            home=Path(environ.get("QUAYSIDE_HOME") or DEFAULT_HOME).absolute(),
            address_pool=address_pool,
            mirrors=mirrors,
            insecure_registries=frozenset(_words(environ.get("QUAYSIDE_INSECURE_REGISTRIES", ""))),
        )


def _words(value: str) -> list[str]:
    return [word.strip() for word in value.split(",") if word.strip()]
