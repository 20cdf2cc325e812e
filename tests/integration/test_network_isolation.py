"""What must not reach what: networks, the outside, internal networks, other homes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netns import HOST, OUTSIDE, Machine, close_server, machine, query, serve, tcp, udp
from tests.network_home import Home, make_home

SHORT = 0.15


@pytest.fixture
def host() -> Iterator[Machine]:
    with machine() as made:
        made.outside.serve(7000, "outside")
        yield made


@pytest.fixture
def home(host: Machine, tmp_path: Path) -> Iterator[Home]:
    with make_home(host, tmp_path / "home") as made:
        yield made


def test_neighbours_reach_each_other_and_the_outside(home: Home) -> None:
    network = home.network()
    first, second = home.container("first", network), home.container("second", network)
    assert first.peer.inside(lambda: tcp(second.address, 80)) == f"second {first.address}"
    assert first.peer.inside(lambda: udp(second.address, 80)) == f"second {first.address}"
    # masqueraded: the outside has no route back to the subnet
    assert first.peer.inside(lambda: tcp(OUTSIDE, 7000)) == f"outside {HOST}"
    assert first.peer.inside(lambda: udp(OUTSIDE, 7000)) == f"outside {HOST}"


def test_networks_are_apart(home: Home) -> None:
    first = home.container("first", home.network("one"))
    second = home.container("second", home.network("two"))
    for ask in (tcp, udp):
        assert first.peer.inside(lambda ask=ask: ask(second.address, 80, SHORT)) == "TimeoutError"  # type: ignore[misc]
        assert second.peer.inside(lambda ask=ask: ask(first.address, 80, SHORT)) == "TimeoutError"  # type: ignore[misc]


def test_a_route_from_outside_leads_nowhere(home: Home) -> None:
    web = home.container("web", home.network())
    port = home.publish(web, container_port=80).host_port
    outside = home.machine.outside
    outside.ip("route", "add", str(web.attachments[0].network.subnet), "via", HOST)
    assert outside.inside(lambda: tcp(HOST, port)).startswith("web ")
    for number in (80, 81):
        assert outside.inside(lambda n=number: tcp(web.address, n, SHORT)) == "TimeoutError"  # type: ignore[misc]
        assert outside.inside(lambda n=number: udp(web.address, n, SHORT)) == "TimeoutError"  # type: ignore[misc]


def test_an_internal_network_has_no_way_out(home: Home) -> None:
    network, other = home.network("inner", internal=True), home.network("other")
    first, second = home.container("first", network), home.container("second", network)
    stranger = home.container("stranger", other)
    listening = serve(7001, "host")
    try:
        inside = first.peer.inside
        assert inside(lambda: tcp(second.address, 80)) == f"second {first.address}"
        assert inside(lambda: query(str(network.gateway), "second")) == second.address
        assert inside(lambda: tcp(OUTSIDE, 7000, SHORT)) == "OSError"  # no route at all
        first.peer.ip("route", "add", "default", "via", str(network.gateway))
        for address, port in (
            (OUTSIDE, 7000),
            (stranger.address, 80),
            (HOST, 7001),
            (str(network.gateway), 7001),
        ):
            for ask in (tcp, udp):
                got = inside(lambda a=address, p=port, ask=ask: ask(a, p, SHORT))  # type: ignore[misc]
                assert got == "TimeoutError", (address, port, ask)
        assert stranger.peer.inside(lambda: tcp(first.address, 80, SHORT)) == "TimeoutError"
        # published, it is for this machine only
        port = home.publish(first).host_port
        assert tcp("127.0.0.1", port).startswith("first ")
        assert tcp(first.address, 80).startswith("first ")
        assert home.machine.outside.inside(lambda: tcp(HOST, port, SHORT)) == "TimeoutError"
        assert stranger.peer.inside(lambda: tcp(HOST, port, SHORT)) == "TimeoutError"
    finally:
        for server in listening:
            close_server(server)


def test_a_forged_sender_gets_nowhere(home: Home) -> None:
    """An address of another network's, sent by one with NET_ADMIN, is no way in there."""
    first = home.container("first", home.network("one"))
    second = home.container("second", home.network("two"))
    first.peer.ip("addr", "add", f"{second.address}/32", "dev", "lo")
    first.peer.ip(
        "route", "add", OUTSIDE, "via", str(first.attachments[0].network.gateway),
        "src", second.address,
    )  # fmt: skip
    assert first.peer.inside(lambda: udp(OUTSIDE, 7000, SHORT)) == "TimeoutError"


def test_containers_have_no_ipv6_way_around(home: Home) -> None:
    web = home.container("web", home.network())
    assert "inet6" not in web.peer.ip("addr", "show", "dev", "eth0")
    bridge = web.attachments[0].network.bridge
    disabled = Path(f"/proc/sys/net/ipv6/conf/{bridge}/disable_ipv6")
    assert disabled.read_text().strip() == "1"


def test_two_homes_live_side_by_side(home: Home, tmp_path: Path) -> None:
    with make_home(home.machine, tmp_path / "second") as other:
        first, second = (
            home.container("web", home.network()),
            other.container("web", other.network()),
        )
        ports = home.publish(first).host_port, other.publish(second).host_port
        assert tcp("127.0.0.1", ports[0]).startswith("web ")
        assert tcp("127.0.0.1", ports[1]).startswith("web ")
        gateways = [str(one.attachments[0].network.gateway) for one in (first, second)]
        assert first.peer.inside(lambda: query(gateways[0], "web")) == first.address
        assert second.peer.inside(lambda: query(gateways[1], "web")) == second.address
        assert first.peer.inside(lambda: tcp(second.address, 80, SHORT)) == "TimeoutError"
        other.manager.release_all()
        assert tcp("127.0.0.1", ports[0]).startswith("web ")
        assert first.peer.inside(lambda: query(gateways[0], "web")) == first.address
        assert first.peer.inside(lambda: tcp(OUTSIDE, 7000)) == f"outside {HOST}"
