"""What the rest of the engine asks of the network: `NetworkManager`.

Every operation is idempotent, holds the home's lock (a file, so that worker and engined take
turns), and writes down what it is about to do first: killed anywhere, doing it again, or undoing
it, or `repair` puts things right. Nothing that matters is kept in memory. Times: `attach` 10 ms
(the next name server starts beside the netlink calls), `publish` 2 ms and 10 more for each udp
port, `release` 10 to 30, of which the lock is held for 8.

Who may use which network, address or port is for services to decide.
Never call from a thread that runs an event loop: pyroute2 runs its own.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from engine.config import EngineConfig
from engine.errors import Conflict, InvalidInput, NetworkFailed
from engine.network import conntrack, firewall, links, ports, routes, ruleset
from engine.network.names import Names, Starting, resolv_conf
from engine.network.nft import Nftables
from engine.network.records import Observed as Observed
from engine.network.records import Records
from engine.network.spec import Attachment, NetworkSpec, PortBinding, PublishedPort
from engine.network.table import Table

logger = logging.getLogger(__name__)

HOST_RESOLV_CONF = Path("/etc/resolv.conf")
_KINDS = (False, True)  # of name servers: open, internal


class NetworkManager:
    def __init__(self, config: EngineConfig) -> None:
        self._root = config.network_dir
        self._bridge_prefix = config.bridge_prefix
        self._prefix = config.bridge_prefix.removesuffix("-")
        self._veth_prefix = f"{self._prefix}v"
        self._records = Records(self._root)
        self._table = Table(config.nft_table, self._records)
        self._nft = Nftables()
        self._names = Names(config.names_dir)

    def close(self) -> None:
        """Give back what the manager holds open; it opens it again when it is used again."""
        with self._lock() as nft:
            nft.close()

    def keep_names_on(self, mount: Callable[[Path], None]) -> None:
        """Keep the files of names on what `mount` mounts at a path, unless they are there already.

        Those of a home from before are told anew, from the records, by the next `attach` or
        `repair`; until then nobody answers for them."""
        with self._lock():
            self._names.move(mount)

    def ensure(self, network: NetworkSpec) -> None:
        """Make the network, or what is missing of it.

        Raises Conflict when its subnet is routed elsewhere or another network of the same id
        exists, InvalidInput for a bridge whose name is not the home's.
        """
        with self._lock() as nft:
            self._ensure(nft, network)
            self._turn(nft, self._start_names(nft))

    def networks(self) -> tuple[NetworkSpec, ...]:
        """All that were made here and not taken away."""
        with self._lock():
            return tuple(self._records.networks())

    def recorded(self, network_id: str) -> NetworkSpec | None:
        """The network as it was made here; None before."""
        return self._records.network(network_id)

    def remove(self, network: NetworkSpec) -> None:
        """Take the network away; Conflict while a container is attached."""
        with self._lock() as nft:
            for record in self._records.containers():
                if any(one.network.id == network.id for one in record.attachments):
                    raise Conflict(
                        f"network {network.name} has a container: {record.id[:12]}",
                        hint="disconnect or remove its containers first",
                        network=network.name,
                    )
            for command in ruleset.remove_network(self._table.name, network):
                nft.attempt(command)
            firewall.close_way(nft, self._table.name, network.bridge)
            self._names.drop_network(network)
            self._turn(nft, self._start_names(nft))
            links.remove(network.bridge)
            self._records.drop_network(network.id)

    def attach(self, attachment: Attachment, container_id: str, pid: int) -> None:
        """Connect the network namespace of process `pid` (made by the runtime) to a network.

        Its names resolve for the network's other containers when this returns. Doing it again
        makes the interface anew. Raises NetworkFailed, and what `ensure` raises; nothing of it is
        left then.
        """
        # Those of who had the address before.
        conntrack.forget_addresses([attachment.address])
        with self._lock() as nft:
            network = attachment.network
            if not self._made(network):
                self._ensure(nft, network)
            before = self._records.container(container_id)
            others = tuple(one for one in before.attachments if one.network.id != network.id)
            self._records.put_container(replace(before, attachments=(*others, attachment)))
            self._names.put(container_id, attachment)
            starting = self._start_names(nft)
            try:
                links.attach(attachment, self._veth(attachment), pid)
                self._turn(nft, starting)
            except BaseException:
                for server in starting.values():
                    server.abandon()
                links.remove(self._veth(attachment))
                self._names.drop(container_id, network)
                self._records.put_container(replace(before, attachments=others))
                raise

    def detach(self, container_id: str, network_id: str | None = None) -> None:
        """Take the container out of one network, or out of all; with its flows and names."""
        networks = None if network_id is None else (network_id,)
        self._release(container_id, networks=networks, unpublish=False)

    def attached(self, container_id: str) -> tuple[Attachment, ...]:
        """Its attachments as they were made, in no order; empty when it has none."""
        with self._lock():
            return self._records.container(container_id).attachments

    def route(self, container_id: str, pid: int, network_id: str | None) -> None:
        """Let the default route of the container of process `pid` lead to this network of its;
        None where none has a way out: the route went with its interface. Raises NetworkFailed."""
        with self._lock():
            record = self._records.container(container_id)
            turned = tuple(
                replace(one, gateway=one.network.id == network_id) for one in record.attachments
            )
            gateway = next((one.network.gateway for one in turned if one.gateway), None)
            if gateway is not None:
                links.set_default(pid, gateway)
            self._records.put_container(replace(record, attachments=turned))

    def reserve(self, bindings: Sequence[PortBinding]) -> ports.Reservation:
        """Sockets that hold the ports, all or none: give `fds` to conmon, then close.

        A port of 0 becomes a free one. Until `publish` connections are refused. Raises PortTaken
        naming address and port, InvalidInput for an address that is not this machine's.
        """
        return ports.reserve(bindings)

    def publish(
        self, container_id: str, address: IPv4Address, published: Sequence[PublishedPort]
    ) -> None:
        """Turn exactly these ports to the container, in one transaction.

        What the container had published before and is not among them is closed. An element that
        somebody else left under one of the keys goes: who holds the socket has the port.
        """
        with self._lock() as nft:
            before = self._records.container(container_id)
            everything = tuple(dict.fromkeys((*published, *before.ports)))
            self._records.put_container(replace(before, address=address, ports=everything))
            removals = "".join(
                ruleset.remove_port(self._table.name, port)
                for port in everything
                if (owner := self._table.owner(nft, port)) is not None
                and (port in published or owner == container_id)
            )
            additions = ruleset.add_ports(self._table.name, container_id, address, published)
            self._table.run(nft, removals + additions, otherwise=additions)
            if before.address and before.ports:
                kept = published if before.address == address else ()
                closed = [port for port in before.ports if port not in kept]
                conntrack.forget_published(before.address, closed)
            conntrack.forget_unpublished(published)
            self._records.put_container(
                replace(before, address=address if published else None, ports=tuple(published))
            )

    def unpublish(self, container_id: str) -> None:
        """Close all ports of the container, and end what came in by them."""
        self._release(container_id, networks=(), unpublish=True)

    def release(self, container_id: str) -> None:
        """`unpublish` and `detach` of all at once, in half the time: for a container that ended.

        Flows it had itself are left: nobody is there, and who next gets its address begins by
        dropping them (`attach`)."""
        self._release(container_id, networks=None, unpublish=True, ended=True)

    def resolv_conf(self, networks: Sequence[NetworkSpec]) -> str:
        """The text of /etc/resolv.conf for a container in `networks`, after the host's own."""
        try:
            host_text = HOST_RESOLV_CONF.read_text()
        except FileNotFoundError:
            host_text = ""
        return resolv_conf(networks, host_text)

    def host_subnets(self) -> list[IPv4Network]:
        """Subnets this machine has routes to: `taken` for addresses.next_subnet."""
        return routes.host_subnets()

    def observe(self) -> Observed:
        """Read what exists; changes nothing."""
        with self._lock() as nft:
            found = links.names(self._prefix)
            return Observed(
                networks=tuple(self._records.networks()),
                containers=tuple(self._records.containers()),
                bridges=frozenset(name for name, bridge in found.items() if bridge),
                veths=frozenset(name for name, bridge in found.items() if not bridge),
                published=tuple(self._table.published(nft)),
                name_servers=tuple(self._names.pids().values()),
                table=self._table.exists(nft),
                obstacles=firewall.obstacles(nft, self._table.name),
            )

    def repair(self, alive: Collection[str]) -> tuple[str, ...]:
        """Make the kernel agree with the records, and the records with `alive` (container ids).

        What belongs to other containers is released; missing bridges, rules and name servers come
        back; interfaces and ports on no record go. Gives one sentence for each thing changed.
        """
        changed: list[str] = []
        with self._lock() as nft:
            if next(self._records.networks(), None) and self._table.restore(nft):
                changed.append(f"nftables table {self._table.name} made again")
            dead = [record.id for record in self._records.containers() if record.id not in alive]
        for container_id in dead:
            self._release(container_id, networks=None, unpublish=True)
            changed.append(f"network of container {container_id[:12]} released")
        with self._lock() as nft:
            for network in self._records.networks():
                missing = not links.exists(network.bridge)
                try:
                    self._ensure(nft, network)
                except (
                    Conflict,
                    InvalidInput,
                    NetworkFailed,
                ) as error:  # the others are to work all the same
                    logger.warning("network %s cannot be made: %s", network.name, error)
                    changed.append(f"network {network.name} cannot be made: {error}")
                else:
                    if missing:
                        changed.append(f"bridge {network.bridge} made again")
            records = list(self._records.containers())
            wanted = {self._veth(one) for record in records for one in record.attachments}
            wanted |= {network.bridge for network in self._records.networks()}
            for name in links.names(self._prefix):
                if name not in wanted:
                    links.remove(name)
                    changed.append(f"interface {name} on no record removed")
            ports_on_record = {(record.id, port) for record in records for port in record.ports}
            for owner, port, _ in self._table.published(nft):
                if (owner, port) not in ports_on_record:
                    nft.attempt(ruleset.remove_port(self._table.name, port))
                    changed.append(
                        f"port {port.host_ip}:{port.host_port}/{port.protocol} on no record closed"
                    )
            starting = self._start_names(nft)
            self._turn(nft, starting)
            changed += [f"name server started at port {one.port}" for one in starting.values()]
        return tuple(changed)

    def release_all(self) -> None:
        """Take everything of this home away: bridges, interfaces, table, servers, records.

        The machine goes on forwarding: whether somebody else relies on it by now cannot be told.
        """
        with self._lock() as nft:
            networks = list(self._records.networks())
            addresses = [
                one.address for record in self._records.containers() for one in record.attachments
            ]
            firewall.close_all(nft, self._table.name)
            for network in networks:
                firewall.close_way(nft, self._table.name, network.bridge)
            self._names.clear()
            links.remove(*links.names(self._prefix))
            nft.run(f"add table inet {self._table.name}\ndelete table inet {self._table.name}\n")
            if addresses:
                conntrack.forget_addresses(addresses)
            self._records.clear()

    @contextmanager
    def _lock(self) -> Iterator[Nftables]:
        path = self._root / "lock"
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)  # between threads too: each has opened the file anew
            yield self._nft
        finally:
            os.close(fd)

    def _veth(self, attachment: Attachment) -> str:
        return links.veth_name(self._veth_prefix, attachment.address)

    def _made(self, network: NetworkSpec) -> bool:
        return (
            self._records.network(network.id) == network
            and links.exists(network.bridge)
            and self._names.has(network)
        )

    def _ensure(self, nft: Nftables, network: NetworkSpec) -> None:
        if not network.bridge.startswith(self._bridge_prefix):
            raise InvalidInput(
                f"bridge name does not begin with {self._bridge_prefix}: {network.bridge}",
                field="bridge",
            )
        recorded = self._records.network(network.id)
        if recorded is None:
            self._records.put_network(network)
        elif recorded != network:
            raise Conflict(
                f"network {network.id} exists with other settings: {recorded.subnet}",
                hint="remove it before it is made again",
                network=network.name,
            )
        links.enable_forwarding()
        try:
            links.ensure_bridge(network)
        except Conflict:
            if recorded is None:
                self._records.drop_network(network.id)
            raise
        self._table.run(nft, ruleset.add_network(self._table.name, network))
        firewall.open_way(nft, self._table.name, self._bridge_prefix, network.bridge)
        told = self._names.has(network)
        self._names.put_network(network)
        if not told:
            for record in self._records.containers():
                for one in record.attachments:
                    if one.network.id == network.id:
                        self._names.put(record.id, one)

    def _release(
        self,
        container_id: str,
        *,
        networks: Collection[str] | None,
        unpublish: bool,
        ended: bool = False,
    ) -> None:
        """Undo attachments to `networks` (None: all) and, if asked, what is published."""
        with self._lock() as nft:
            record = self._records.container(container_id)
            gone = [
                one for one in record.attachments if networks is None or one.network.id in networks
            ]
            closed = record.ports if unpublish else ()
            for port in closed:
                # A stale record may name a port that another container has by now.
                if self._table.owner(nft, port) == record.id:
                    nft.attempt(ruleset.remove_port(self._table.name, port))
            for one in gone:
                self._names.drop(container_id, one.network)
            if gone:
                self._turn(nft, self._start_names(nft))
        # The kernel takes its time over these, so others may go on meanwhile. The addresses are
        # the container's until this returns; killed here, it is all still on record.
        if gone:
            links.remove(*(self._veth(one) for one in gone))
            if closed or not ended:
                conntrack.forget_addresses([one.address for one in gone])
        if closed and record.address and record.address not in {one.address for one in gone}:
            conntrack.forget_published(record.address, closed)
        with self._lock():
            record = self._records.container(container_id)
            attachments = tuple(one for one in record.attachments if one not in gone)
            ports_left = tuple(port for port in record.ports if port not in closed)
            self._records.put_container(replace(record, attachments=attachments, ports=ports_left))

    def _start_names(self, nft: Nftables) -> dict[bool, Starting]:
        """Begin the servers (by internal) whose zones have changed; `_turn` completes it."""
        starting: dict[bool, Starting] = {}
        for internal in _KINDS:
            if server := self._names.start(internal, self._table.names_port(nft, internal)):
                starting[internal] = server
        return starting

    def _turn(self, nft: Nftables, starting: Mapping[bool, Starting]) -> None:
        for internal, server in starting.items():
            self._table.run(nft, ruleset.turn_names(self._table.name, internal, server.wait()))
