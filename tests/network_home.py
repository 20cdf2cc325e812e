"""A home's networks and containers on a machine of its own (tests.netns)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from engine.config import EngineConfig
from engine.network.addresses import gateway_of, mac_for, next_address, next_subnet
from engine.network.manager import NetworkManager
from engine.network.ports import Reservation
from engine.network.spec import Attachment, NetworkSpec, PortBinding, Protocol, PublishedPort
from tests.netns import Machine, Peer
from tests.pools import free_pool


@dataclass
class Container:
    id: str
    peer: Peer
    attachments: list[Attachment]

    @property
    def address(self) -> str:
        return str(self.attachments[0].address)


@dataclass
class Home:
    machine: Machine
    config: EngineConfig
    manager: NetworkManager = field(init=False)
    networks: list[NetworkSpec] = field(default_factory=list)
    taken: set[IPv4Address] = field(default_factory=set)
    reservations: list[Reservation] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.manager = NetworkManager(self.config)

    def network(self, name: str = "default", *, internal: bool = False) -> NetworkSpec:
        subnet = next_subnet(
            self.config.address_pool,
            [*(one.subnet for one in self.networks), *self.manager.host_subnets()],
        )
        network = NetworkSpec(
            id=hashlib.sha256(f"{self.config.home}{name}".encode()).hexdigest(),
            name=name,
            subnet=subnet,
            gateway=gateway_of(subnet),
            bridge=f"{self.config.bridge_prefix}{len(self.networks)}",
            internal=internal,
        )
        self.networks.append(network)
        self.manager.ensure(network)
        return network

    def attachment(self, network: NetworkSpec, *names: str, interface: str = "eth0") -> Attachment:
        address = next_address(network.subnet, self.taken)
        self.taken.add(address)
        return Attachment(network, address, mac_for(address), interface, names)

    def container(self, name: str, *networks: NetworkSpec) -> Container:
        """Attached, and answering its name on 80 and 81, tcp and udp."""
        container_id = hashlib.sha256(name.encode()).hexdigest()
        peer = self.machine.peer()
        attachments = []
        for number, network in enumerate(networks):
            one = self.attachment(network, name, container_id[:12], interface=f"eth{number}")
            self.manager.attach(one, container_id, peer.pid)
            attachments.append(one)
        for port in (80, 81):
            peer.serve(port, name)
        return Container(container_id, peer, attachments)

    def publish(
        self,
        container: Container,
        *,
        protocol: Protocol = "tcp",
        host_ip: str = "0.0.0.0",
        host_port: int = 0,
        container_port: int = 80,
    ) -> PublishedPort:
        reservation = self.manager.reserve(
            [PortBinding(container_port, protocol, host_ip, host_port)]
        )
        self.reservations.append(reservation)
        self.manager.publish(container.id, container.attachments[0].address, reservation.ports)
        return reservation.ports[0]

    def close(self) -> None:
        for reservation in self.reservations:
            reservation.close()
        self.manager.release_all()
        self.manager.close()


@contextmanager
def make_home(machine: Machine, folder: Path) -> Iterator[Home]:
    home = Home(machine, EngineConfig(home=folder, address_pool=IPv4Network(free_pool())))
    try:
        yield home
    finally:
        home.close()
