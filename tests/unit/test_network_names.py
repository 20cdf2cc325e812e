from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from engine.network.names import Names, resolv_conf
from engine.network.spec import Attachment, NetworkSpec, asked_servers

OPEN = NetworkSpec("n1", "one", IPv4Network("10.64.0.0/24"), IPv4Address("10.64.0.1"), "qs-a")
INNER = NetworkSpec(
    "n2", "two", IPv4Network("10.64.1.0/24"), IPv4Address("10.64.1.1"), "qs-b", internal=True
)
HOST = """# made by something
nameserver 127.0.0.53
nameserver ::1
nameserver 192.0.2.53
search example.org corp.example.org

options edns0 ndots:5 trust-ad
"""


def test_the_gateway_resolves_and_the_hosts_search_is_kept() -> None:
    assert resolv_conf([OPEN], HOST) == (
        "nameserver 10.64.0.1\nsearch example.org corp.example.org\n"
        "options edns0 trust-ad ndots:0\n"
    )


def test_a_network_with_a_way_out_goes_first() -> None:
    assert resolv_conf([INNER, OPEN], "").startswith("nameserver 10.64.0.1\n")
    assert resolv_conf([INNER], "") == "nameserver 10.64.1.1\noptions ndots:0\n"


def test_without_networks_servers_on_the_hosts_loopback_go() -> None:
    text = resolv_conf([], HOST)
    assert "127.0.0.53" not in text
    assert "::1" not in text
    assert "nameserver 192.0.2.53\n" in text


def test_a_containers_own_servers_are_asked_by_its_networks(tmp_path: Path) -> None:
    names = Names(tmp_path)
    servers = asked_servers(("9.9.9.9", "127.0.0.53", "::1"))
    assert servers == ("9.9.9.9",)  # the loopback would be the host's
    address, mac = IPv4Address("10.64.0.2"), "02:42:0a:40:00:02"
    names.put("c" * 64, Attachment(OPEN, address, mac, names=("web",), dns=servers))
    assert (tmp_path / "zones/open/n1").read_text().splitlines()[1:] == [
        f"{'c' * 64} 10.64.0.2  web 9.9.9.9"
    ]
