"""Security case 19, the network's part: the console on its default address, 127.0.0.1, and the
engine's sockets, which are files, are not to be reached from a container over the network.

That signing in is asked for where the console listens more widely is for the console's own tests.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netns import HOST, Machine, close_server, machine, serve, tcp
from tests.network_home import Home, make_home

CONSOLE = 8000
SHORT = 0.15


@pytest.fixture
def host() -> Iterator[Machine]:
    with machine() as made:
        servers = serve(CONSOLE, "console", "127.0.0.1")
        try:
            yield made
        finally:
            for server in servers:
                close_server(server)


@pytest.fixture
def home(host: Machine, tmp_path: Path) -> Iterator[Home]:
    with make_home(host, tmp_path / "home") as made:
        yield made


@pytest.mark.parametrize("internal", [False, True])
def test_no_address_leads_to_the_console(home: Home, internal: bool) -> None:
    network = home.network(internal=internal)
    web = home.container("web", network)
    home.publish(web, host_ip="127.0.0.1")
    assert tcp("127.0.0.1", CONSOLE).startswith("console ")
    for address in ("127.0.0.1", "127.1.2.3", "0.0.0.0", HOST, str(network.gateway)):
        got = web.peer.inside(lambda address=address: tcp(address, CONSOLE, SHORT))  # type: ignore[misc]
        assert not got.startswith("console"), address


def test_ipv6_is_no_way_there_either(home: Home) -> None:
    web = home.container("web", home.network())
    with socket.create_server(("::1", CONSOLE), family=socket.AF_INET6):
        assert web.peer.inside(lambda: tcp("::1", CONSOLE, SHORT)) == "ConnectionRefusedError"


def test_abstract_unix_sockets_are_another_namespaces(home: Home) -> None:
    """An abstract socket belongs to the network namespace: nothing of the host's is seen."""
    web = home.container("web", home.network())

    def connect() -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect("\0quayside-test-abstract")
            except ConnectionRefusedError:
                return False
            return True

    with socket.socket(socket.AF_UNIX) as server:
        server.bind("\0quayside-test-abstract")
        server.listen()
        assert connect()
        assert not web.peer.inside(connect)
