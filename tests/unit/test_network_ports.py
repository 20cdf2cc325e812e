from __future__ import annotations

import socket

import pytest

from engine.errors import InvalidInput, PortTaken
from engine.network.ports import reserve
from engine.network.spec import PortBinding, Protocol

KINDS: dict[Protocol, socket.SocketKind] = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_free_ports_are_different_and_named(protocol: Protocol) -> None:
    bindings = [PortBinding(80, protocol, "127.0.0.1"), PortBinding(81, protocol, "127.0.0.1")]
    with reserve(bindings) as reservation:
        first, second = reservation.ports
        assert first.host_port != second.host_port
        assert (first.container_port, second.container_port) == (80, 81)
        assert [s.getsockname()[1] for s in reservation.sockets] == [
            first.host_port,
            second.host_port,
        ]


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize(("holder", "wanted"), [("0.0.0.0", "127.0.0.1"), ("127.0.0.1", "0.0.0.0")])
def test_conflicts_show_both_ways(protocol: Protocol, holder: str, wanted: str) -> None:
    with reserve([PortBinding(80, protocol, holder)]) as ours:
        port = ours.ports[0].host_port
        with socket.socket(socket.AF_INET, KINDS[protocol]) as other:
            if protocol == "tcp":  # as every server sets it
                other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with pytest.raises(OSError, match="in use"):
                other.bind((wanted, port))
        with pytest.raises(PortTaken) as caught:
            reserve([PortBinding(80, protocol, wanted, port)])
        assert caught.value.context == {"address": wanted, "port": port, "protocol": protocol}

    with socket.socket(socket.AF_INET, KINDS[protocol]) as other:
        other.bind((holder, port))
        if protocol == "tcp":
            other.listen()
        with pytest.raises(PortTaken):
            reserve([PortBinding(80, protocol, wanted, port)])


def test_tcp_and_udp_may_have_the_same_number() -> None:
    with reserve([PortBinding(53, "tcp", "127.0.0.1")]) as first:
        port = first.ports[0].host_port
        with reserve([PortBinding(53, "udp", "127.0.0.1", port)]) as second:
            assert second.ports[0].host_port == port


def test_all_or_none() -> None:
    with reserve([PortBinding(80, "tcp", "127.0.0.1")]) as holder:
        port = holder.ports[0].host_port
    free = port  # was free a moment ago
    with reserve([PortBinding(80, "tcp", "127.0.0.1")]) as taken:
        bindings = [
            PortBinding(80, "tcp", "127.0.0.1", free),
            PortBinding(81, "tcp", "127.0.0.1", taken.ports[0].host_port),
        ]
        with pytest.raises(PortTaken):
            reserve(bindings)
        reserve(bindings[:1]).close()


def test_a_port_left_in_time_wait_can_be_reserved_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        accepted, _ = server.accept()
        accepted.close()  # the side that closes first keeps the port in TIME_WAIT
        assert client.recv(1) == b""
        client.close()
    reserve([PortBinding(80, "tcp", "127.0.0.1", port)]).close()


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"no address 198\.51\.100\.7"):
        reserve([PortBinding(80, "tcp", "198.51.100.7", 0)])


def test_a_reserved_port_answers_nobody() -> None:
    """Dropped by the socket itself, or refused by the table where a home has networks."""
    with reserve([PortBinding(80, "tcp", "127.0.0.1")]) as reservation:
        address = ("127.0.0.1", reservation.ports[0].host_port)
        with pytest.raises((TimeoutError, ConnectionRefusedError)):
            socket.create_connection(address, timeout=0.2)
