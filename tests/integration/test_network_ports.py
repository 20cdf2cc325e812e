"""Published ports, from everywhere they may and may not be reached, tcp and udp."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.network import ruleset
from engine.network.nft import open_nftables
from engine.network.spec import PortBinding, Protocol, PublishedPort
from tests.netns import HOST, Machine, ip, machine, tcp, udp
from tests.network_home import Home, make_home

ASK: dict[Protocol, Callable[..., str]] = {"tcp": tcp, "udp": udp}
SHORT = 0.15
both = pytest.mark.parametrize("protocol", ["tcp", "udp"])


@pytest.fixture
def host() -> Iterator[Machine]:
    with machine() as made:
        yield made


@pytest.fixture
def home(host: Machine, tmp_path: Path) -> Iterator[Home]:
    with make_home(host, tmp_path / "home") as made:
        yield made


def closed(answer: str) -> bool:
    return answer in ("ConnectionRefusedError", "TimeoutError")


@both
@pytest.mark.parametrize("bridge_filter", ["0", "1"])
def test_a_port_answers_from_everywhere(home: Home, protocol: Protocol, bridge_filter: str) -> None:
    """From the machine, from outside, from neighbours, from another network and from itself."""
    Path("/proc/sys/net/bridge/bridge-nf-call-iptables").write_text(bridge_filter)
    network, other = home.network(), home.network("other")
    web = home.container("web", network)
    neighbour, stranger = home.container("neighbour", network), home.container("far", other)
    port = home.publish(web, protocol=protocol).host_port
    ask = ASK[protocol]

    def answered(address: str, as_seen: str | None = None) -> None:
        text = ask(address, port)
        assert text.startswith("web "), f"{address}: {text}"
        if as_seen:
            assert text == f"web {as_seen}"

    answered("127.0.0.1")
    answered(HOST)
    answered(str(network.gateway))
    # the client's address is what the container sees, unlike behind a proxy
    home.machine.outside.inside(lambda: answered(HOST, as_seen="192.0.2.2"))
    for peer in (neighbour.peer, stranger.peer, web.peer):
        peer.inside(lambda: answered(HOST))
    neighbour.peer.inside(lambda: answered(str(network.gateway)))
    web.peer.inside(lambda: answered(str(network.gateway)))


@both
def test_a_port_on_loopback_is_the_machines_own(home: Home, protocol: Protocol) -> None:
    network = home.network()
    web, neighbour = home.container("web", network), home.container("neighbour", network)
    port = home.publish(web, protocol=protocol, host_ip="127.0.0.1").host_port
    ask = ASK[protocol]
    assert ask("127.0.0.1", port).startswith("web ")
    assert closed(ask(HOST, port, SHORT))
    outside = home.machine.outside
    assert closed(outside.inside(lambda: ask(HOST, port, SHORT)))
    assert closed(neighbour.peer.inside(lambda: ask(HOST, port, SHORT)))
    # A neighbour may send packets for 127.0.0.1 here: to be rewritten before the kernel looks.
    outside.inside(lambda: Path("/proc/sys/net/ipv4/conf/all/route_localnet").write_text("1"))
    outside.ip("route", "del", "local", "127.0.0.0/8", "dev", "lo", "table", "local")
    outside.ip("route", "del", "local", "127.0.0.1", "dev", "lo", "table", "local")
    outside.ip("route", "add", "127.0.0.1", "via", HOST, "src", "192.0.2.2")
    seen = home.publish(web, protocol=protocol).host_port
    assert outside.inside(lambda: ask(HOST, seen)).startswith("web ")
    assert outside.inside(lambda: ask("127.0.0.1", port, SHORT)) == "TimeoutError"


@both
def test_a_port_on_one_address_answers_there_only(home: Home, protocol: Protocol) -> None:
    ip("addr", "add", "192.0.2.10/24", "dev", "eth0")
    web = home.container("web", home.network())
    port = home.publish(web, protocol=protocol, host_ip="192.0.2.10").host_port
    ask = ASK[protocol]
    outside = home.machine.outside
    assert outside.inside(lambda: ask("192.0.2.10", port)).startswith("web ")
    assert closed(outside.inside(lambda: ask(HOST, port, SHORT)))
    assert closed(ask("127.0.0.1", port, SHORT))


def test_two_containers_share_a_number_on_two_addresses(home: Home) -> None:
    network = home.network()
    first, second = home.container("first", network), home.container("second", network)
    port = home.publish(first, host_ip="127.0.0.1").host_port
    home.publish(second, host_ip=HOST, host_port=port)
    assert tcp("127.0.0.1", port).startswith("first ")
    assert home.machine.outside.inside(lambda: tcp(HOST, port)).startswith("second ")


@both
def test_a_reserved_port_refuses_until_it_is_published(home: Home, protocol: Protocol) -> None:
    web = home.container("web", home.network())
    ask = ASK[protocol]
    outside = home.machine.outside
    with home.manager.reserve([PortBinding(80, protocol)]) as reservation:
        (port,) = reservation.ports
        assert ask("127.0.0.1", port.host_port) == "ConnectionRefusedError"
        refused = outside.inside(lambda: ask(HOST, port.host_port))
        assert refused == "ConnectionRefusedError"
        home.manager.publish(web.id, web.attachments[0].address, [port])
        assert ask("127.0.0.1", port.host_port).startswith("web ")
        assert outside.inside(lambda: ask(HOST, port.host_port)).startswith("web ")


def test_a_udp_flow_begun_before_reaches_the_container(home: Home) -> None:
    web = home.container("web", home.network())
    outside = home.machine.outside
    with home.manager.reserve([PortBinding(80, "udp")]) as reservation:
        (port,) = reservation.ports
        closed_ = outside.inside(lambda: udp(HOST, port.host_port, source_port=4444))
        assert closed_ == "ConnectionRefusedError"
        home.manager.publish(web.id, web.attachments[0].address, [port])
        assert outside.inside(lambda: udp(HOST, port.host_port, source_port=4444)) == (
            "web 192.0.2.2"
        )


@both
def test_an_unpublished_port_answers_no_more(home: Home, protocol: Protocol) -> None:
    web = home.container("web", home.network())
    port = home.publish(web, protocol=protocol).host_port
    kept = home.publish  # the same binding may be had again afterwards
    outside = home.machine.outside
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    flow = outside.inside(lambda: socket.socket(socket.AF_INET, kind))
    with flow:
        flow.settimeout(2)
        flow.connect((HOST, port))
        flow.send(b"?")
        assert flow.recv(100) == b"web 192.0.2.2"
        home.manager.unpublish(web.id)
        home.manager.unpublish(web.id)
        # a flow that was there is cut as well, not only new ones
        flow.settimeout(SHORT)
        if protocol == "udp":
            with pytest.raises(OSError, match=r"refused|timed out"):
                flow.send(b"?")
                flow.recv(100)
    assert closed(ASK[protocol]("127.0.0.1", port, SHORT))
    assert closed(outside.inside(lambda: ASK[protocol](HOST, port, SHORT)))
    home.reservations.pop().close()
    assert kept(web, protocol=protocol, host_port=port).host_port == port
    assert outside.inside(lambda: ASK[protocol](HOST, port)).startswith("web ")


def test_flows_of_a_container_that_is_gone_do_not_reach_the_next_at_its_address(
    home: Home,
) -> None:
    network = home.network()
    first = home.container("first", network)
    port = home.publish(first, protocol="udp")
    outside = home.machine.outside
    assert outside.inside(lambda: udp(HOST, port.host_port, source_port=4444)).startswith("first")
    home.manager.release(first.id)
    home.taken.remove(first.attachments[0].address)
    second = home.container("second", network)
    assert second.address == first.address
    answer = outside.inside(lambda: udp(HOST, port.host_port, SHORT, source_port=4444))
    assert closed(answer)


def test_publishing_says_exactly_what_is_open(home: Home) -> None:
    """A second call closes what it does not name, and leaves alone what it names again."""
    web = home.container("web", home.network())
    address = web.attachments[0].address
    bindings = [PortBinding(80), PortBinding(81), PortBinding(80, "udp", "127.0.0.1")]
    with home.manager.reserve(bindings) as reservation:
        first, second, third = reservation.ports
        home.manager.publish(web.id, address, [first, second])
        home.manager.publish(web.id, address, [second, third])
        home.manager.publish(web.id, address, [second, third])
        published = home.manager.observe().published
        assert {port for _, port, _ in published} == {second, third}
        assert {owner for owner, _, _ in published} == {web.id}
        assert tcp("127.0.0.1", first.host_port) == "ConnectionRefusedError"
        assert tcp("127.0.0.1", second.host_port).startswith("web ")
        assert udp("127.0.0.1", third.host_port).startswith("web ")


def test_what_a_dead_container_left_under_a_port_gives_way(home: Home) -> None:
    network = home.network()
    web = home.container("web", network)
    with home.manager.reserve([PortBinding(80)]) as reservation:
        (port,) = reservation.ports
        stale = PublishedPort(port.host_ip, port.host_port, 99, "tcp")
        with open_nftables() as nft:
            table = home.config.nft_table
            nft.run(ruleset.add_ports(table, "gone", network.gateway + 99, [stale]))
        home.manager.publish(web.id, web.attachments[0].address, [port])
        assert tcp("127.0.0.1", port.host_port).startswith("web ")


def test_a_stale_record_closes_nobody_elses_port(home: Home) -> None:
    """The port went to another container before anybody cleaned up after the first."""
    network = home.network()
    first, second = home.container("first", network), home.container("second", network)
    port = home.publish(first)
    home.manager.publish(second.id, second.attachments[0].address, [port])
    home.manager.unpublish(first.id)
    assert tcp("127.0.0.1", port.host_port).startswith("second ")
