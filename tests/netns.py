"""A machine of its own for tests of the network: a network namespace with a neighbour outside.

The thread that asks for `machine()` is moved into the namespace, so everything it starts sees that
one's interfaces, rules and name servers only, and nothing is left on the real machine.
"""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)

HOST = "192.0.2.1"
OUTSIDE = "192.0.2.2"


def ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout


def nft(commands: str) -> str:
    return subprocess.run(
        ["nft", "-f", "-"], input=commands, check=True, capture_output=True, text=True
    ).stdout


@dataclass
class Peer:
    """A process with a network namespace of its own: a container, or the machine outside."""

    process: subprocess.Popen[bytes]
    servers: list[socket.socket] = field(default_factory=list)

    @property
    def pid(self) -> int:
        return self.process.pid

    def inside(self, work: Callable[[], T]) -> T:
        """`work` on a thread that is in the peer's network namespace."""
        results: list[T] = []
        errors: list[BaseException] = []

        def run() -> None:
            fd = os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY)
            try:
                if _libc.setns(fd, _CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")
                results.append(work())
            except BaseException as error:  # noqa: BLE001 - raised by the caller's thread
                errors.append(error)
            finally:
                os.close(fd)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return results[0]

    def ip(self, *arguments: str) -> str:
        return self.inside(lambda: ip(*arguments))

    def serve(self, port: int, text: str, address: str = "0.0.0.0") -> None:
        """Answer every TCP connection and every datagram with `text` and who asked."""
        self.servers += self.inside(lambda: serve(port, text, address))

    def close(self) -> None:
        for server in self.servers:
            close_server(server)
        self.process.kill()
        self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()


def serve(port: int, text: str, address: str = "0.0.0.0") -> list[socket.socket]:
    tcp = socket.create_server((address, port))
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind((address, port))

    def accept() -> None:
        while True:
            try:
                connection, client = tcp.accept()
            except OSError:
                return
            with connection:
                connection.sendall(f"{text} {client[0]}".encode())

    def answer() -> None:
        while True:
            try:
                data, client = udp.recvfrom(512)
            except OSError:
                return
            if not data:
                return
            udp.sendto(f"{text} {client[0]}".encode(), client)

    for work in (accept, answer):
        threading.Thread(target=work, daemon=True).start()
    return [tcp, udp]


def close_server(server: socket.socket) -> None:
    try:
        server.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits in it
    except OSError:
        pass  # an unconnected datagram socket says so, and wakes it
    server.close()


def new_peer() -> Peer:
    process = subprocess.Popen(
        ["unshare", "-n", "sh", "-c", "ip link set lo up; echo; exec sleep 1000"],
        stdout=subprocess.PIPE,
    )
    assert process.stdout
    process.stdout.readline()
    return Peer(process)


@dataclass
class Machine:
    outside: Peer
    peers: list[Peer]

    def peer(self) -> Peer:
        self.peers.append(new_peer())
        return self.peers[-1]


@contextmanager
def machine() -> Iterator[Machine]:
    """A host at 192.0.2.1 with a neighbour at 192.0.2.2, which is also its DNS server's address."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    peers: list[Peer] = []
    try:
        if _libc.unshare(_CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "unshare")
        ip("link", "set", "lo", "up")
        outside = new_peer()
        peers.append(outside)
        ip(
            *("link", "add", "eth0", "type", "veth"),
            *("peer", "name", "eth0", "netns", str(outside.pid)),
        )
        ip("addr", "add", f"{HOST}/24", "dev", "eth0")
        ip("link", "set", "eth0", "up")
        ip("route", "add", "default", "via", OUTSIDE)
        outside.ip("addr", "add", f"{OUTSIDE}/24", "dev", "eth0")
        outside.ip("link", "set", "eth0", "up")
        yield Machine(outside, peers)
    finally:
        for peer in reversed(peers):
            peer.close()
        if _libc.setns(home, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
        os.close(home)


def tcp(address: str, port: int, timeout: float = 2.0) -> str:
    """What a server says, or the error's name."""
    try:
        with socket.create_connection((address, port), timeout=timeout) as connection:
            return connection.recv(512).decode()
    except OSError as error:
        return type(error).__name__


def udp(address: str, port: int, timeout: float = 2.0, source_port: int = 0) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(timeout)
        try:
            client.bind(("0.0.0.0", source_port))
            client.connect((address, port))
            client.send(b"?")
            return client.recv(512).decode()
        except OSError as error:
            return type(error).__name__


def query(server: str, name: str, kind: int = 1, timeout: float = 2.0) -> str:
    """An address (A), a name (PTR), "nothing" (no such record), "unknown" (no such name)."""
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    head = b"\x12\x34\x01\x00\x00\x01" + bytes(6)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(timeout)
        try:
            client.connect((server, 53))
            client.send(head + labels + b"\0" + kind.to_bytes(2, "big") + b"\0\1")
            answer = client.recv(512)
        except OSError as error:
            return type(error).__name__
    if answer[3] & 15 == 3:
        return "unknown"
    if answer[3] & 15:
        return f"code {answer[3] & 15}"
    if not int.from_bytes(answer[6:8], "big"):
        return "nothing"
    return socket.inet_ntoa(answer[-4:]) if kind == 1 else answer.hex()


def upstream() -> str:
    """The first name server of the machine the tests run on."""
    for line in Path("/etc/resolv.conf").read_text().splitlines():
        words: Sequence[str] = line.split()
        if words and words[0] == "nameserver" and ":" not in words[1]:
            return words[1]
    raise AssertionError("/etc/resolv.conf names no IPv4 server")
