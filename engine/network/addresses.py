"""Pure choice of subnets, addresses and MACs; what is taken comes from the caller's rows.

The unique constraint in the database decides between two callers that chose the same.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from ipaddress import IPv4Address, IPv4Network

from engine.errors import Conflict

SUBNET_PREFIX = 24


def next_subnet(
    pool: IPv4Network, taken: Iterable[IPv4Network], prefix: int = SUBNET_PREFIX
) -> IPv4Network:
    """The first subnet of `pool` that overlaps nothing in `taken` (networks and host routes).

    Raises Conflict when the pool is used up.
    """
    # Only what lies in the pool can be in the way; what covers it (a VPN's 10/8) blocks it all.
    inside = sorted((net for net in taken if net.overlaps(pool)), key=lambda net: net[0])
    size = 1 << (32 - max(prefix, pool.prefixlen))
    start = int(pool.network_address)
    for net in inside:
        if int(net.network_address) >= start + size:
            break
        behind = int(net.broadcast_address) + 1
        start = max(start, -(-behind // size) * size)
    if start + size - 1 > int(pool.broadcast_address):
        raise Conflict(
            f"no free subnet left in {pool}",
            hint="remove networks that are not used, or set QUAYSIDE_ADDRESS_POOL to a larger or "
            "other range",
            pool=str(pool),
        )
    return IPv4Network((start, max(prefix, pool.prefixlen)))


def gateway_of(subnet: IPv4Network) -> IPv4Address:
    """The first host address, as Docker has it."""
    return subnet.network_address + 1


def next_address(
    subnet: IPv4Network,
    taken: Collection[IPv4Address],
    *,
    gateway: IPv4Address | None = None,
    within: IPv4Network | None = None,
) -> IPv4Address:
    """The lowest host address of `within` (a part of the subnet, or all of it) not in `taken`;
    the gateway, the first address where none is given, is always taken.

    Raises Conflict when there is none.
    """
    used = {int(address) for address in taken} | {int(gateway or gateway_of(subnet))}
    used |= {int(subnet.network_address), int(subnet.broadcast_address)}
    within = within or subnet
    for number in range(int(within.network_address), int(within.broadcast_address) + 1):
        if number not in used:
            return IPv4Address(number)
    raise Conflict(
        f"no free address left in {subnet}",
        hint="remove containers that are not used, or use another network",
        subnet=str(subnet),
    )


def mac_for(address: IPv4Address) -> str:
    """02:42 and the address's bytes: the same address is the same MAC, so no ARP entry is stale."""
    return ":".join(f"{byte:02x}" for byte in b"\x02\x42" + address.packed)
