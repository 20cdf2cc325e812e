"""Bridges and veth pairs, through netlink; rules and names are left to others.

Never call from a thread that runs an event loop: pyroute2 runs its own.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import string
import threading
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from engine.errors import Conflict, NetworkFailed
from engine.network.addresses import mac_for
from engine.network.spec import Attachment, NetworkSpec

_SYSCTL = Path("/proc/sys/net")
_CLONE_NEWNET = 0x40000000
_LINK_LOCAL_PREFIX = 16
_DIGITS = string.digits + string.ascii_letters


def veth_name(prefix: str, address: IPv4Address) -> str:
    """The host's end of the pair: `prefix` and the address in base 62, six digits, always unique.

    Interface names are case-sensitive, 15 characters at most, and addresses unique in a home.
    """
    number, digits = int(address), ""
    for _ in range(6):
        number, digit = divmod(number, len(_DIGITS))
        digits = _DIGITS[digit] + digits
    return prefix + digits


def enable_forwarding() -> None:
    """Let this machine route. It stays on: who else relies on it by then, nobody can tell."""
    path = _SYSCTL / "ipv4/ip_forward"
    if path.read_text().strip() != "1":
        _set(path, "1")


def ensure_bridge(network: NetworkSpec) -> bool:
    """Make the bridge and give it the gateway's address; idempotent; True when it was not there.

    Raises Conflict when another interface has a route to the subnet.
    """
    with IPRoute() as ip:
        index = _index(network.bridge)
        found = index != 0
        if found:
            if _has_address(ip, index, network) and ip.get_links(index)[0]["flags"] & 1:
                return False
        else:
            _check_free(ip, network)
            try:
                # A bridge without an address of its own takes over the lowest of its ports', and
                # every neighbour's ARP entry would be stale with each container.
                ip.link(
                    "add",
                    ifname=network.bridge,
                    kind="bridge",
                    address=mac_for(network.gateway),
                    **_mtu(network),
                )
            except NetlinkError as error:
                raise _failed(f"bridge {network.bridge} cannot be made", error) from error
            index = _index(network.bridge)
        conf = _SYSCTL / "ipv4/conf" / network.bridge
        # Needed for connections from 127.0.0.1 to a published port; `ruleset` shuts what else it
        # opens. Only here, never for all interfaces: the network outside is not to profit.
        _set(conf / "route_localnet", "1")
        _set(conf / "rp_filter", "1")
        _without_ipv6(network.bridge)
        try:
            if not _has_address(ip, index, network):
                ip.addr(
                    "add",
                    index=index,
                    address=str(network.gateway),
                    prefixlen=network.subnet.prefixlen,
                    broadcast=str(network.subnet.broadcast_address),
                )
            ip.link("set", index=index, state="up")
        except NetlinkError as error:
            raise _failed(f"bridge {network.bridge} cannot be set up", error) from error
        return not found


def attach(attachment: Attachment, host_name: str, pid: int) -> None:
    """Put `attachment.interface` into the network namespace of `pid`, up, with its route.

    A pair left over under `host_name` is taken away first. The first attachment that may be a
    gateway, of a network that is not internal, gives the default route. Raises NetworkFailed; the
    pair is gone then.
    """
    try:
        namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise NetworkFailed(
            f"network namespace of process {pid} is gone", hint="the container ended early"
        ) from error
    try:
        with IPRoute() as ip:
            _add_pair(ip, attachment, host_name, namespace)
        try:
            _inside(namespace, lambda: _plumb(attachment))
        except BaseException:
            remove(host_name)
            raise
    finally:
        os.close(namespace)


def set_default(pid: int, gateway: IPv4Address) -> None:
    """Turn the default route in the network namespace of `pid`. Raises NetworkFailed."""
    try:
        namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise NetworkFailed(f"network namespace of process {pid} is gone") from error
    try:
        _inside(namespace, lambda: _turn_default(gateway))
    finally:
        os.close(namespace)


def _turn_default(gateway: IPv4Address) -> None:
    with IPRoute() as ip:
        try:
            ip.route("replace", dst="default", gateway=str(gateway))
        except NetlinkError as error:
            raise _failed("the default route cannot be set", error) from error


def remove(*names: str) -> int:
    """Delete interfaces; those that are gone already count for nothing."""
    removed = 0
    with IPRoute() as ip:
        for name in names:
            try:
                ip.link("del", ifname=name)
                removed += 1
            except NetlinkError as error:
                if error.code != errno.ENODEV:
                    raise _failed(f"interface {name} cannot be removed", error) from error
    return removed


def names(prefix: str) -> dict[str, bool]:
    """Every interface whose name begins with `prefix`; the value says whether it is a bridge."""
    with IPRoute() as ip:
        found: dict[str, bool] = {}
        for link in ip.get_links():
            name = str(link.get_attr("IFLA_IFNAME"))
            if name.startswith(prefix):
                info = link.get_attr("IFLA_LINKINFO")
                found[name] = bool(info) and info.get_attr("IFLA_INFO_KIND") == "bridge"
        return found


def exists(name: str) -> bool:
    return _index(name) != 0


def _index(name: str) -> int:
    """0 when there is none. An ioctl: twenty times as fast as asking netlink."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return 0


def _routes(ip: IPRoute) -> list[tuple[IPv4Network, int]]:
    routes: list[tuple[IPv4Network, int]] = []
    for route in ip.get_routes(family=2, table=254):
        destination = route.get_attr("RTA_DST")
        if destination:
            subnet = IPv4Network((destination, route["dst_len"]))
            routes.append((subnet, route.get_attr("RTA_OIF") or 0))
    return routes


def _check_free(ip: IPRoute, network: NetworkSpec) -> None:
    for subnet, index in _routes(ip):
        if subnet.overlaps(network.subnet):
            link = ip.get_links(index) if index else ()
            name = link[0].get_attr("IFLA_IFNAME") if link else "a route"
            raise Conflict(
                f"subnet {network.subnet} overlaps {subnet} of {name}",
                hint="choose another subnet, or set QUAYSIDE_ADDRESS_POOL to a range that is free",
                subnet=str(network.subnet),
            )


def _has_address(ip: IPRoute, index: int, network: NetworkSpec) -> bool:
    return any(
        address.get_attr("IFA_LOCAL") == str(network.gateway)
        for address in ip.get_addr(family=2, index=index)
    )


def _add_pair(ip: IPRoute, attachment: Attachment, host_name: str, namespace: int) -> None:
    bridge = _index(attachment.network.bridge)
    if not bridge:
        raise NetworkFailed(f"bridge {attachment.network.bridge} is gone")
    pair = {
        "ifname": host_name,
        "kind": "veth",
        "master": bridge,
        "state": "up",
        "peer": {
            "ifname": attachment.interface,
            "net_ns_fd": namespace,
            "address": attachment.mac,
            **_mtu(attachment.network),
        },
        **_mtu(attachment.network),
    }
    try:
        try:
            ip.link("add", **pair)
        except NetlinkError as error:
            if error.code != errno.EEXIST or not _index(host_name):
                raise
            ip.link("del", ifname=host_name)
            ip.link("add", **pair)
        # A container that uses its own published port gets its packets back through the port
        # they came from.
        ip.brport("set", index=_index(host_name), mode=1)
    except NetlinkError as error:
        raise _failed(
            f"interface {attachment.interface} cannot be made for {attachment.address}", error
        ) from error


def _plumb(attachment: Attachment) -> None:
    """Runs inside the container's network namespace."""
    _without_ipv6(attachment.interface)
    with IPRoute() as ip:
        try:
            index = _index(attachment.interface)
            ip.addr(
                "add",
                index=index,
                address=str(attachment.address),
                prefixlen=attachment.network.subnet.prefixlen,
                broadcast=str(attachment.network.subnet.broadcast_address),
            )
            for address in attachment.link_local:
                ip.addr("add", index=index, address=str(address), prefixlen=_LINK_LOCAL_PREFIX)
            ip.link("set", index=index, state="up")
            if attachment.gateway and not attachment.network.internal:
                try:
                    ip.route("add", dst="default", gateway=str(attachment.network.gateway))
                except NetlinkError as error:
                    if error.code != errno.EEXIST:  # the first network's stays
                        raise
        except NetlinkError as error:
            raise _failed(f"address {attachment.address} cannot be set", error) from error


def _mtu(network: NetworkSpec) -> dict[str, int]:
    return {"mtu": network.mtu} if network.mtu else {}


def _inside(namespace: int, work: Callable[[], None]) -> None:
    """Run `work` in a network namespace, on a thread that ends with it: none comes back wrong."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            if _libc.setns(namespace, _CLONE_NEWNET):
                code = ctypes.get_errno()
                raise NetworkFailed(f"network namespace cannot be entered: {os.strerror(code)}")
            work()
        except BaseException as error:  # noqa: BLE001 - handed to the caller's thread
            raised.append(error)

    thread = threading.Thread(target=run, name="netns")
    thread.start()
    thread.join()
    if raised:
        raise raised[0]


def _without_ipv6(interface: str) -> None:
    """Networks are IPv4: link-local addresses would be a way around every rule of ours."""
    path = _SYSCTL / "ipv6/conf" / interface / "disable_ipv6"
    if path.exists():  # not when the kernel runs without IPv6
        _set(path, "1")


def _set(path: Path, value: str) -> None:
    try:
        path.write_text(value)
    except OSError as error:
        raise NetworkFailed(
            f"cannot write {path}: {error.strerror}", hint="/proc/sys must be writable"
        ) from error


def _failed(what: str, error: NetlinkError) -> NetworkFailed:
    return NetworkFailed(f"{what}: {os.strerror(error.code)}")


_libc = ctypes.CDLL(None, use_errno=True)
