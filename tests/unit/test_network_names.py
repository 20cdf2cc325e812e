from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

from engine.network.names import resolv_conf
from engine.network.spec import NetworkSpec

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
