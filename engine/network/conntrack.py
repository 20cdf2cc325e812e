"""Dropping connection-tracking entries, so that a flow sees what was changed.

The nat chains look at the first packet of a flow only. A UDP client that keeps its source port
goes on reaching a container that is gone (or the next one at its address), or missing one that has
come, until its entry goes.

Plain netlink and no library: one dump walks the whole hash table (10 ms for its usual 262,144
buckets, however few the entries), so an operation makes one dump and looks for several things in
it, and a full table must not be decoded entry by entry: the address sought is searched for in each
piece of 64 KiB first, which costs next to nothing.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from engine.errors import NetworkFailed
from engine.network.spec import ANY_ADDRESS, PublishedPort

_NETLINK_NETFILTER = 12
_GET, _DELETE = 0x0101, 0x0102  # (NFNL_SUBSYS_CTNETLINK << 8) | IPCTNL_MSG_CT_*
_REQUEST, _ACK, _DUMP = 0x001, 0x004, 0x300
_ERROR, _DONE = 2, 3
_NESTED, _TYPE = 0x8000, 0x3FFF
_TUPLE_ORIG, _TUPLE_REPLY, _ZONE, _FILTER = 1, 2, 18, 25
_FILTER_PROTOCOL, _FILTER_DESTINATION_PORT = 1 << 3, 1 << 5
_COUNT = Path("/proc/sys/net/netfilter/nf_conntrack_count")
_NUMBERS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP}


@dataclass(frozen=True, slots=True)
class Flow:
    """One tracked IPv4 flow: as its first packet had it, and where answers come from."""

    protocol: int
    source: bytes
    destination: bytes
    port: int
    answers_from: bytes
    answers_to: bytes
    key: bytes
    """The attributes that name it to the kernel."""

    @property
    def translated(self) -> bool:
        return self.answers_from != self.destination or self.answers_to != self.source


def forget_addresses(addresses: Collection[IPv4Address]) -> int:
    """Drop every flow that a container at one of `addresses` began or was reached by.

    Gives how many there were; raises NetworkFailed, as all here do.
    """
    sought = {address.packed for address in addresses}
    return _drop(
        lambda flow: not sought.isdisjoint((flow.source, flow.destination, flow.answers_from)),
        needles=sought,
    )


def forget_published(address: IPv4Address, ports: Collection[PublishedPort]) -> int:
    """Drop the flows that `ports` turned to the container at `address`, which runs on."""
    numbers = {(_NUMBERS[port.protocol], port.host_port) for port in ports}
    return _drop(
        lambda flow: (
            flow.answers_from == address.packed
            and flow.translated
            and (flow.protocol, flow.port) in numbers
        ),
        needles={address.packed},
    )


def forget_unpublished(ports: Collection[PublishedPort]) -> int:
    """Drop UDP flows to `ports` of this machine that began before these were published.

    A TCP flow cannot have: until then the port refuses (`ruleset`, held sockets).
    """
    return sum(
        _drop(_untranslated_to(port), only=(_NUMBERS["udp"], port.host_port))
        for port in ports
        if port.protocol == "udp"
    )


def _untranslated_to(port: PublishedPort) -> Callable[[Flow], bool]:
    address = IPv4Address(port.host_ip)

    def chosen(flow: Flow) -> bool:
        if flow.protocol != _NUMBERS["udp"] or flow.port != port.host_port or flow.translated:
            return False
        # A flow to the same port of another machine matches the number too: not ours to drop.
        return flow.destination == address.packed or (
            address == ANY_ADDRESS and _is_here(flow.destination)
        )

    return chosen


def _is_here(address: bytes) -> bool:
    """Whether the kernel lets us bind to `address`: cheaper than reading all addresses."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((socket.inet_ntoa(address), 0))
        except OSError:
            return False
        return True


def _drop(
    chosen: Callable[[Flow], bool],
    *,
    needles: Collection[bytes] = (),
    only: tuple[int, int] | None = None,
) -> int:
    """Delete the flows `chosen` says yes to, of those that have one of `needles` in them.

    `only` (protocol, destination port) is told to the kernel, which leaves the others out from
    5.8 on; older ones give all, so `chosen` has to decide nevertheless.
    """
    try:
        if _COUNT.read_text().strip() == "0":
            return 0
    except FileNotFoundError:  # connection tracking is not loaded: nothing is tracked
        return 0
    filter_ = b""
    if only is not None:
        protocol, port = only
        tuple_ = _attribute(1, bytes([protocol])) + _attribute(3, struct.pack(">H", port))
        flags = struct.pack("=I", _FILTER_PROTOCOL | _FILTER_DESTINATION_PORT)
        filter_ = _attribute(_TUPLE_ORIG | _NESTED, _attribute(2 | _NESTED, tuple_))
        filter_ += _attribute(_FILTER | _NESTED, _attribute(1, flags))
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as link:
            doomed = [
                flow.key
                for buffer in _dump(link, filter_)
                if not needles or any(needle in buffer for needle in needles)
                for flow in _flows(buffer)
                if chosen(flow)
            ]
            return sum(_delete(link, key) for key in doomed)
    except OSError as error:
        raise NetworkFailed(f"connection tracking refused: {error.strerror}") from error


def _dump(link: socket.socket, attributes: bytes) -> Iterator[bytes]:
    link.send(_message(_GET, _REQUEST | _DUMP, attributes))
    while True:
        buffer = link.recv(1 << 16)
        yield buffer
        # what ends a dump comes in a message of its own or as the last of a buffer
        for kind, body in _messages(buffer):
            if kind == _ERROR:
                _raise(body)
            if kind == _DONE:
                return


def _flows(buffer: bytes) -> Iterator[Flow]:
    for kind, body in _messages(buffer):
        if kind in (_ERROR, _DONE) or body[0] != socket.AF_INET:
            continue
        parts = dict(_attributes(body[4:]))
        original, reply = _tuple(parts[_TUPLE_ORIG]), _tuple(parts[_TUPLE_REPLY])
        key = _attribute(_TUPLE_ORIG | _NESTED, parts[_TUPLE_ORIG])
        if _ZONE in parts:
            key += _attribute(_ZONE, parts[_ZONE])
        yield Flow(
            protocol=original[2],
            source=original[0],
            destination=original[1],
            port=original[3],
            answers_from=reply[0],
            answers_to=reply[1],
            key=key,
        )


def _tuple(data: bytes) -> tuple[bytes, bytes, int, int]:
    """Source, destination, protocol and destination port (0 where there are none)."""
    parts = dict(_attributes(data))
    addresses, protocol = dict(_attributes(parts[1])), dict(_attributes(parts[2]))
    return (
        addresses[1],
        addresses[2],
        protocol[1][0],
        int.from_bytes(protocol.get(3, b""), "big"),
    )


def _delete(link: socket.socket, key: bytes) -> int:
    link.send(_message(_DELETE, _REQUEST | _ACK, key))
    for kind, body in _messages(link.recv(1 << 16)):
        if kind == _ERROR:
            code = -struct.unpack_from("=i", body)[0]
            if code == errno.ENOENT:  # it ended by itself
                return 0
            if code:
                _raise(body)
    return 1


def _raise(body: bytes) -> None:
    code = -struct.unpack_from("=i", body)[0]
    raise OSError(code, os.strerror(code))


def _message(kind: int, flags: int, attributes: bytes) -> bytes:
    body = struct.pack("=BBH", socket.AF_INET, 0, 0) + attributes
    return struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body


def _messages(buffer: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + 16 <= len(buffer):
        length, kind = struct.unpack_from("=IH", buffer, offset)
        yield kind, buffer[offset + 16 : offset + length]
        offset += (length + 3) & ~3


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        yield kind & _TYPE, data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
