"""Zones of aliases that one container alone asks for others by (`--link` on its network).

aardvark-dns answers whoever asks with the names of every zone that knows the asker's id or
address. So a linking container and a target of its share a zone of their own, beside their
network's: a first line that nobody can bind, the container's id without an address, and the
target's address under its aliases. What that costs, as of aardvark-dns 1.4.0:
- The address lets the target ask there too: it knows itself by the alias, and nobody else does.
- All answers of all an asker's zones are put together, and repeated where an address is known by
  the same id twice. So the line of a target has an id that is nobody's, and an alias is left out
  which the linking container or the target already asks somebody by: neither is to get two
  answers, the target least of all, which did not ask for the link. /etc/hosts has it all the same.
- The last line about an address says which servers it asks outside, so a target's are repeated.

Aliases follow the zones: a target that comes, goes or comes again elsewhere changes this text
with its own. Nothing here touches the machine; `names` keeps the files and asks for the zones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

NOWHERE = "192.0.2.1"
"""Of TEST-NET-1 (RFC 5737): no machine has it, so a zone behind it has no gateway to wait for."""


@dataclass(frozen=True, slots=True)
class Linked:
    """`links` of a container on a network, (name, alias) each: the alias is asked for whom the
    network knows by the name."""

    network_id: str
    container_id: str
    links: tuple[tuple[str, str], ...]

    @property
    def name(self) -> str:
        """Of its file, and how its zones begin; no network's does, for an id has no plus sign."""
        return f"{self.network_id}+{self.container_id}"

    def text(self) -> str:
        """A line a link."""
        return "".join(f"{name} {alias}\n" for name, alias in self.links)

    @classmethod
    def parse(cls, name: str, text: str) -> Linked:
        """What `name` and `text` were made of."""
        network_id, _, container_id = name.partition("+")
        links = tuple(line.partition(" ")[::2] for line in text.splitlines())
        return cls(network_id, container_id, links)


@dataclass(frozen=True, slots=True)
class _Entry:
    """A line of a network's zone: `ID ADDRESS  NAME,NAME[ SERVER,SERVER]`."""

    id: str
    address: str
    names: tuple[str, ...]
    servers: str

    @classmethod
    def parse(cls, line: str) -> _Entry:
        id, address, _, names, *servers = line.split(" ")
        return cls(id, address, tuple(names.lower().split(",")), " ".join(servers))


def zones_of(networks: Mapping[str, str], linked: Iterable[Linked]) -> dict[str, str]:
    """The further zones (text by name) for those that are linked on one of `networks` (likewise).

    One whose targets are all away has none.
    """
    linked = [one for one in linked if one.network_id in networks]
    if not linked:
        return {}
    entries = {
        network: [_Entry.parse(line) for line in text.splitlines()[1:]]
        for network, text in networks.items()
    }
    zones = {}
    for one in linked:
        own = f"{one.container_id}   {one.container_id[:12]}"
        for target in entries[one.network_id]:
            aliases = [
                alias
                for alias in _aliases(one, target)
                if not _known(alias, (one.container_id, target.id), entries)
                and not _links_too(alias, target.id, linked)
            ]
            if aliases:
                zone = f"{one.name}+{target.id}"
                servers = f" {target.servers}" if target.servers else ""
                line = f"{zone} {target.address}  {','.join(aliases)}{servers}"
                zones[zone] = f"{NOWHERE}\n{own}\n{line}\n"
    return zones


def _aliases(one: Linked, target: _Entry) -> list[str]:
    if target.id == one.container_id:
        return []
    found = (alias.lower() for name, alias in one.links if name.lower() in target.names)
    return list(dict.fromkeys(found))


def _known(alias: str, askers: Iterable[str], entries: Mapping[str, list[_Entry]]) -> bool:
    """Whether one of the askers gets an answer for the alias already."""
    return any(
        any(entry.id in askers for entry in zone) and any(alias in entry.names for entry in zone)
        for zone in entries.values()
    )


def _links_too(alias: str, target: str, linked: Iterable[Linked]) -> bool:
    """Whether the target asks another by that alias."""
    return any(
        one.container_id == target and any(alias == own.lower() for _, own in one.links)
        for one in linked
    )
