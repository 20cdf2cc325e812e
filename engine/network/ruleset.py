"""The text of a home's one nftables table; pure, nothing is run here.

One `inet` table a home. Its chains never change: what exists (bridges, published ports, which name
server answers) are elements of sets and maps, so that every change is one small transaction.

What the chains hold:
- nothing from a bridge reaches or claims 127.0.0.0/8, although route_localnet is on for bridges
  (security case 23), and a port published on 127.0.0.1 is not reached from another machine that
  sends packets for 127.0.0.1 here: rewriting them would come before the kernel's own refusal;
- into a bridge comes from outside of it only what belongs to a published port or answers what
  went out: networks are apart, and a neighbour's route to the subnet leads nowhere;
- an internal network reaches its own members, its resolver and echo on its gateway;
- a port that is reserved but not published (`ports`) refuses;
- DNS (port 53 of the gateway) is turned to the name server of the moment, see `names`: without
  tracking, so that a change holds for the next packet of every resolver, and an answer of the
  last server still gets through.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Address
from typing import Any

from engine.network.ports import HELD_MARK
from engine.network.spec import ANY_ADDRESS, NetworkSpec, PublishedPort

# Where name servers listen, on gateway addresses only and outside the ephemeral range: one pair
# for networks with a way out, one for internal ones, see `names`.
OPEN_PORTS = (25353, 25354)
CLOSED_PORTS = (25355, 25356)


def base(table: str) -> str:
    """A fresh table in place of whatever is there, in one transaction."""
    open_ports = ", ".join(map(str, OPEN_PORTS))
    closed_ports = ", ".join(map(str, CLOSED_PORTS))
    return f"""
add table inet {table}
delete table inet {table}
table inet {table} {{
  set bridges {{ type ifname; }}
  set internal {{ type ifname; }}
  set within {{ type ifname . ifname; }}
  set subnets {{ type ipv4_addr . ifname; flags interval; }}
  set egress {{ type ipv4_addr; flags interval; }}
  set resolvers {{ type ifname . ipv4_addr; }}
  set gateways {{ type ipv4_addr; }}
  map names_open {{ type inet_service : inet_service; }}
  map names_closed {{ type inet_service : inet_service; }}
  map ports_at {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }}
  map ports_any {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}

  chain raw {{
    type filter hook prerouting priority raw; policy accept;
    iifname @bridges ip daddr 127.0.0.0/8 drop
    iifname @bridges ip saddr 127.0.0.0/8 drop
    iifname @internal iifname . ip daddr @resolvers udp dport 53 notrack \
udp dport set udp dport map @names_closed
    iifname . ip daddr @resolvers udp dport 53 notrack udp dport set udp dport map @names_open
  }}
  chain answers {{
    type filter hook output priority raw; policy accept;
    oifname @bridges ip saddr @gateways udp sport {{ {open_ports}, {closed_ports} }} notrack \
udp sport set 53
  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    ip daddr 127.0.0.0/8 iifname != "lo" return
    dnat ip to ip daddr . meta l4proto . th dport map @ports_at
    fib daddr type local dnat ip to meta l4proto . th dport map @ports_any
  }}
  chain output {{
    type nat hook output priority -100; policy accept;
    dnat ip to ip daddr . meta l4proto . th dport map @ports_at
    fib daddr type local dnat ip to meta l4proto . th dport map @ports_any
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    oifname @bridges ip saddr 127.0.0.0/8 masquerade
    ct status dnat ip saddr . oifname @subnets masquerade
    ip saddr @egress oifname != @bridges masquerade
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    iifname . oifname @within accept
    iifname @internal drop
    oifname @internal drop
    oifname @bridges ct state established,related accept
    oifname @bridges ct status dnat accept
    oifname @bridges drop
  }}
  chain input {{
    type filter hook input priority filter; policy accept;
    iifname != @internal iifname . ip daddr @resolvers udp dport {{ {open_ports} }} accept
    iifname @internal iifname . ip daddr @resolvers udp dport {{ {closed_ports} }} accept
    iifname != "lo" ip daddr @gateways udp dport {{ 53, {open_ports}, {closed_ports} }} reject
    iifname != "lo" ip daddr @gateways tcp dport 53 reject with tcp reset
    meta l4proto tcp ct state new socket mark {HELD_MARK} reject with tcp reset
    meta l4proto udp ct state new socket mark {HELD_MARK} reject
    iifname @internal ct state established,related accept
    iifname @internal icmp type echo-request accept
    iifname @internal drop
  }}
}}
"""


def add_network(table: str, network: NetworkSpec) -> str:
    """Idempotent."""
    return _elements("add", table, _network_elements(network))


def remove_network(table: str, network: NetworkSpec) -> list[str]:
    """One command an element, each to be run by itself: an element may be gone already."""
    return [_elements("delete", table, [one]) for one in _network_elements(network)]


def add_ports(
    table: str, container_id: str, address: IPv4Address, ports: Iterable[PublishedPort]
) -> str:
    """Idempotent for the same values; another container's element under a key is an error."""
    return "".join(
        f'add element inet {table} {map_of(port)} {{ {port_key(port)} comment "{container_id}" : '
        f"{address} . {port.container_port} }}\n"
        for port in ports
    )


def remove_port(table: str, port: PublishedPort) -> str:
    return f"delete element inet {table} {map_of(port)} {{ {port_key(port)} }}\n"


def get_port(table: str, port: PublishedPort) -> str:
    """nft prints this one as text, also when JSON is asked for: see `owner_of`."""
    return f"get element inet {table} {map_of(port)} {{ {port_key(port)} }}\n"


def owner_of(text: str) -> str:
    """The container id in what `get_port` printed."""
    found = re.search(r'comment "([^"]*)"', text)
    return found.group(1) if found else ""


def map_of(port: PublishedPort) -> str:
    return "ports_any" if IPv4Address(port.host_ip) == ANY_ADDRESS else "ports_at"


def port_key(port: PublishedPort) -> str:
    key = f"{port.protocol} . {port.host_port}"
    return key if map_of(port) == "ports_any" else f"{port.host_ip} . {key}"


def turn_names(table: str, internal: bool, port: int | None) -> str:
    """Let queries go to the name server at `port` from here on; None: to none."""
    name = "names_closed" if internal else "names_open"
    flush = f"flush map inet {table} {name}\n"
    if port is None:
        return flush
    return f"{flush}add element inet {table} {name} {{ 53 : {port} }}\n"


def list_names(table: str, internal: bool) -> str:
    return f"list map inet {table} {'names_closed' if internal else 'names_open'}"


def parse_names(objects: Iterable[dict[str, Any]]) -> int | None:
    """The port that `turn_names` last turned queries to, from `list_names`'s JSON."""
    for item in objects:
        for _, port in item.get("map", {}).get("elem", ()):
            return int(port)
    return None


def parse_ports(objects: Iterable[dict[str, Any]]) -> list[tuple[str, PublishedPort, IPv4Address]]:
    """(container id, port, address) of each element of both maps, from `list map`'s JSON."""
    found: list[tuple[str, PublishedPort, IPv4Address]] = []
    for item in objects:
        for key, value in item.get("map", {}).get("elem", ()):
            container_id = ""
            if "elem" in key:
                container_id = key["elem"].get("comment", "")
                key = key["elem"]["val"]
            *host, protocol, host_port = key["concat"]
            address, container_port = value["concat"]
            port = PublishedPort(
                host_ip=host[0] if host else str(ANY_ADDRESS),
                host_port=host_port,
                container_port=container_port,
                protocol=_PROTOCOLS.get(protocol, protocol),
            )
            found.append((container_id, port, IPv4Address(address)))
    return found


# nft's JSON names protocols by number when /etc/protocols is missing
_PROTOCOLS: dict[object, Any] = {6: "tcp", 17: "udp", "6": "tcp", "17": "udp"}


def _network_elements(network: NetworkSpec) -> list[tuple[str, str]]:
    bridge = f'"{network.bridge}"'
    return [
        ("bridges", bridge),
        ("within", f"{bridge} . {bridge}"),
        ("subnets", f"{network.subnet} . {bridge}"),
        ("resolvers", f"{bridge} . {network.gateway}"),
        ("gateways", str(network.gateway)),
        ("internal", bridge) if network.internal else ("egress", str(network.subnet)),
    ]


def _elements(verb: str, table: str, elements: Iterable[tuple[str, str]]) -> str:
    return "".join(f"{verb} element inet {table} {name} {{ {key} }}\n" for name, key in elements)
