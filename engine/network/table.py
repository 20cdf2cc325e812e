"""The home's nftables table: made with all that is on record, and again when somebody flushed it.

What its chains say is in `ruleset`; when something is put into it, in `manager`.
"""

from __future__ import annotations

from ipaddress import IPv4Address

from engine.errors import NetworkFailed
from engine.network import ruleset
from engine.network.nft import Nftables
from engine.network.records import Records
from engine.network.spec import PublishedPort


class Table:
    """The caller holds the home's lock, and gives what it asks the kernel with."""

    def __init__(self, name: str, records: Records) -> None:
        self.name = name
        self._records = records

    def run(self, nft: Nftables, commands: str, otherwise: str | None = None) -> None:
        """Run commands, or, when somebody flushed the table, make it again and run `otherwise`.

        Raises NetworkFailed."""
        error = nft.attempt(commands)
        if error and self.restore(nft):
            nft.run(commands if otherwise is None else otherwise)
        elif error:
            raise NetworkFailed(f"nftables refused: {error}")

    def exists(self, nft: Nftables) -> bool:
        return not nft.attempt(f"list chain inet {self.name} raw")

    def restore(self, nft: Nftables) -> bool:
        """Make the table with all that is on record when it is missing; True if it was."""
        if self.exists(nft):
            return False
        commands = [ruleset.base(self.name)]
        commands += [ruleset.add_network(self.name, one) for one in self._records.networks()]
        for record in self._records.containers():
            if record.address:
                commands.append(
                    ruleset.add_ports(self.name, record.id, record.address, record.ports)
                )
        nft.run("".join(commands))
        return True

    def published(self, nft: Nftables) -> list[tuple[str, PublishedPort, IPv4Address]]:
        """(container id, port, address) of each element that is there."""
        objects = [
            item
            for name in ("ports_at", "ports_any")
            for item in nft.query(f"list map inet {self.name} {name}") or ()
        ]
        return ruleset.parse_ports(objects)

    def names_port(self, nft: Nftables, internal: bool) -> int | None:
        """Where queries of this kind of network are turned to now."""
        return ruleset.parse_names(nft.query(ruleset.list_names(self.name, internal)) or ())

    def owner(self, nft: Nftables, port: PublishedPort) -> str | None:
        """The id of the container that has the port; None where nobody has."""
        if nft.attempt(ruleset.get_port(self.name, port)):
            return None
        return ruleset.owner_of(nft.output())
