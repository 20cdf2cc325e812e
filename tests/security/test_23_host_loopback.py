"""Security case 23: no container reaches the host's loopback, whatever capabilities it has.

route_localnet, which ports published on 127.0.0.1 need, would let it.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netns import HOST, Machine, close_server, ip, machine, nft, serve, tcp, udp
from tests.network_home import Container, Home, make_home

SHORT = 0.15
SECRET = 7100


@pytest.fixture
def host() -> Iterator[Machine]:
    with machine() as made:
        servers = serve(SECRET, "secret", "127.0.0.1")
        try:
            yield made
        finally:
            for server in servers:
                close_server(server)


@pytest.fixture
def home(host: Machine, tmp_path: Path) -> Iterator[Home]:
    with make_home(host, tmp_path / "home") as made:
        yield made


@pytest.fixture(params=[False, True], ids=["open", "internal"])
def armed(home: Home, request: pytest.FixtureRequest) -> Container:
    """A container with a port on 127.0.0.1 that has bent its own routes: 127.0.0.1 lies outside."""
    web = home.container("web", home.network(internal=request.param))
    home.publish(web, host_ip="127.0.0.1")
    network = web.attachments[0].network
    localnet = Path("/proc/sys/net/ipv4/conf/eth0/route_localnet")
    web.peer.inside(lambda: localnet.write_text("1"))
    for address in ("127.0.0.0/8", "127.0.0.1"):
        web.peer.ip("route", "del", "local", address, "dev", "lo", "table", "local")
    web.peer.ip("route", "add", "127.0.0.0/8", "via", str(network.gateway), "src", web.address)
    if network.internal:
        web.peer.ip("route", "add", "default", "via", str(network.gateway))
    assert "via" in web.peer.ip("route", "get", "127.0.0.1")
    return web


def test_routes_of_its_own_lead_nowhere(armed: Container) -> None:
    assert tcp("127.0.0.1", SECRET).startswith("secret ")
    for ask in (tcp, udp):
        got = armed.peer.inside(lambda ask=ask: ask("127.0.0.1", SECRET, SHORT))  # type: ignore[misc]
        assert got == "TimeoutError"


def test_the_defence_is_what_stops_it(home: Home, armed: Container) -> None:
    """Without the table's first chain the same packets arrive: the others show something."""
    if armed.attachments[0].network.internal:
        # Its second wall lets in nothing from the bridge but DNS and echo: down with that too.
        nft(f"flush chain inet {home.config.nft_table} input")
    nft(f"flush chain inet {home.config.nft_table} raw")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as local:
        local.bind(("127.0.0.1", 7101))
        local.settimeout(2)
        armed.peer.inside(lambda: send_raw(armed.address, "127.0.0.1", 7101))
        assert local.recv(100) == b"forged"


def test_packets_that_claim_to_come_from_loopback_are_dropped(armed: Container) -> None:
    """By NET_RAW: a service that trusts 127.0.0.1 as a sender hears nothing."""
    gateway = str(armed.attachments[0].network.gateway)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as trusting:
        trusting.bind(("0.0.0.0", 7101))
        trusting.settimeout(SHORT)
        for source, destination in (
            ("127.0.0.1", gateway),
            ("127.0.0.1", HOST),
            ("127.0.0.1", "127.0.0.1"),
            (armed.address, "127.0.0.1"),
        ):
            armed.peer.inside(lambda s=source, d=destination: send_raw(s, d, 7101))  # type: ignore[misc]
        with pytest.raises(TimeoutError):
            trusting.recv(100)
        if not armed.attachments[0].network.internal:
            armed.peer.inside(lambda: send_raw(armed.address, gateway, 7101))
            assert trusting.recv(100) == b"forged"  # an honest sender's would have come


def test_loopback_of_the_host_is_not_opened_to_the_network_outside(armed: Container) -> None:
    """route_localnet is on for bridges only."""
    assert Path("/proc/sys/net/ipv4/conf/all/route_localnet").read_text().strip() == "0"
    assert Path("/proc/sys/net/ipv4/conf/eth0/route_localnet").read_text().strip() == "0"
    bridge = armed.attachments[0].network.bridge
    assert Path(f"/proc/sys/net/ipv4/conf/{bridge}/route_localnet").read_text().strip() == "1"
    assert "127.0.0.1" in ip("addr", "show", "dev", "lo")


def send_raw(source: str, destination: str, port: int) -> None:
    payload = b"forged"
    datagram = struct.pack("!HHHH", 4000, port, 8 + len(payload), 0) + payload
    header = struct.pack(
        "!BBHHHBBH4s4s",
        *(0x45, 0, 20 + len(datagram), 0, 0, 64, socket.IPPROTO_UDP, 0),
        socket.inet_aton(source),
        socket.inet_aton(destination),
    )
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        raw.sendto(header + datagram, (destination, 0))
