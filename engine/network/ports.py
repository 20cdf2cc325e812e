"""Reserving host ports: a bound socket per published port, so that conflicts show both ways.

A map in nftables reserves nothing: another program could listen on the same port and never hear a
packet, or hear it after ours has gone. The sockets are handed to conmon and live as long as the
container does. Turning packets to the container is left to `ruleset` and `manager`.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType

from engine.errors import InvalidInput, NetworkFailed, PortTaken
from engine.network.spec import PortBinding, PublishedPort

HELD_MARK = 0x71756179
"""Of every reserving socket: while its port is not published, `ruleset` refuses by this mark."""

_SO_ATTACH_FILTER = 26
_FREE_PORT_ATTEMPTS = 8


@dataclass(frozen=True, slots=True)
class Reservation:
    """Sockets and the ports they hold, in the order of the bindings.

    Closing it (or leaving its `with`) frees the ports unless somebody else, who was handed `fds`,
    holds them open still.
    """

    sockets: tuple[socket.socket, ...]
    ports: tuple[PublishedPort, ...]

    @property
    def fds(self) -> tuple[int, ...]:
        return tuple(one.fileno() for one in self.sockets)

    def close(self) -> None:
        for one in self.sockets:
            one.close()

    def __enter__(self) -> Reservation:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def reserve(bindings: Iterable[PortBinding]) -> Reservation:
    """Bind all or none.

    Raises PortTaken naming address, port and protocol, InvalidInput for an address this machine
    does not have.
    """
    sockets: list[socket.socket] = []
    ports: list[PublishedPort] = []
    try:
        for binding in bindings:
            one = _bind(binding)
            sockets.append(one)
            ports.append(
                PublishedPort(
                    host_ip=binding.host_ip,
                    host_port=one.getsockname()[1],
                    container_port=binding.container_port,
                    protocol=binding.protocol,
                )
            )
    except BaseException:
        for one in sockets:
            one.close()
        raise
    return Reservation(tuple(sockets), tuple(ports))


def _bind(binding: PortBinding) -> socket.socket:
    # A free TCP port may turn out to be bound by a socket that does not listen yet: next one.
    attempts = 1 if binding.host_port else _FREE_PORT_ATTEMPTS
    while True:
        attempts -= 1
        try:
            return _open(binding)
        except OSError as error:
            if error.errno == errno.EADDRINUSE and attempts:
                continue
            raise _explained(binding, error) from error


def _open(binding: PortBinding) -> socket.socket:
    tcp = binding.protocol == "tcp"
    one = socket.socket(socket.AF_INET, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM)
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, HELD_MARK)
        _hear_nothing(one)
        if tcp:
            # Connections of the last holder in TIME_WAIT do not stand in the way; a listener does.
            # (On UDP the option would let two sockets share the port.)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind((binding.host_ip, binding.host_port))
        if tcp:
            one.listen(1)
    except BaseException:
        one.close()
        raise
    return one


def _hear_nothing(one: socket.socket) -> None:
    """Drop in the kernel what still reaches the socket, should our table be gone.

    Nobody would ever answer a connection the kernel accepts for us, or read a datagram.
    """
    program = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0), 8)  # BPF_RET 0
    one.setsockopt(
        socket.SOL_SOCKET,
        _SO_ATTACH_FILTER,
        struct.pack("HP", 1, ctypes.addressof(program)),
    )


def _explained(binding: PortBinding, error: OSError) -> Exception:
    where = f"{binding.host_ip}:{binding.host_port}/{binding.protocol}"
    if error.errno == errno.EADDRINUSE:
        return PortTaken(
            f"port is taken: {where}",
            hint="choose another host port, leave it empty for a free one, or stop what uses it",
            address=binding.host_ip,
            port=binding.host_port,
            protocol=binding.protocol,
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return InvalidInput(
            f"this machine has no address {binding.host_ip}",
            hint="use 0.0.0.0 for every address, 127.0.0.1 for this machine only",
            field="host_ip",
        )
    return NetworkFailed(f"port cannot be reserved: {where}: {error.strerror}")
