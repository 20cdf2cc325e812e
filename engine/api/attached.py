"""A container's networks, ports and mounts in Docker's shape, from rows that are already there.

Nothing here asks the database: a list of a thousand containers gives the rows it has fetched.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from engine.models import Container, Endpoint, Network, Port, VolumeUse
from engine.network.addresses import mac_for
from engine.services.addresses import wishes_of
from engine.services.networks import BUILTIN, builtin_uid, is_default, names_of
from engine.services.volumes import mountpoint

JSON = dict[str, Any]
_NOTHING: Mapping[str, Any] = {}


def endpoint_shape(
    endpoint: Endpoint | None,
    network: Network | None,
    running: bool,
    names: Iterable[str] = (),
    more_aliases: Iterable[str] = (),
    wishes: Mapping[str, Any] = _NOTHING,
) -> JSON:
    """One entry of NetworkSettings.Networks; without an endpoint that of `none` or `host`. `wishes`
    is an EndpointSettings' JSON."""
    there = endpoint if running else None
    aliases = [*endpoint.names, *more_aliases] if endpoint is not None else []
    return {
        "IPAMConfig": _asked(endpoint, wishes),
        "Links": list(wishes.get("links", ())) or None,
        "Aliases": aliases or None,
        "MacAddress": there.mac if there else _asked_mac(endpoint),
        "DriverOpts": dict(wishes.get("driver_options", {})) or None,
        "GwPriority": 0,
        "NetworkID": network.uid if network else "",
        "EndpointID": there.uid if there else "",
        "Gateway": _gateway(network) if there else "",
        "IPAddress": there.address if there else "",
        "IPPrefixLen": _prefix(network) if there else 0,
        "IPv6Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "DNSNames": list(names) or None,
    }


def _asked(endpoint: Endpoint | None, wishes: Mapping[str, Any]) -> JSON | None:
    found: JSON = {}
    if endpoint is not None and endpoint.fixed:
        found["IPv4Address"] = endpoint.address
    if wishes.get("link_local"):
        found["LinkLocalIPs"] = list(wishes["link_local"])
    return found or None


def _asked_mac(endpoint: Endpoint | None) -> str:
    """moby shows what was asked for before the start too; ours is made from the address."""
    if endpoint is None or endpoint.address is None:
        return endpoint.mac if endpoint else ""
    return "" if endpoint.mac == mac_for(IPv4Address(endpoint.address)) else endpoint.mac


def _gateway(network: Network | None) -> str:
    return "" if network is None or network.internal else network.gateway


def _prefix(network: Network | None) -> int:
    return IPv4Network(network.subnet).prefixlen if network else 0


def networks_shape(
    container: Container, endpoints: Iterable[Endpoint], *, in_list: bool = False
) -> JSON:
    """By network's name; `none` and `host` have an entry too, a shared namespace none. A list
    leaves out the names a resolver knows, as moby's does (container/view.go)."""
    mode = str(container.settings.get("network_mode", ""))
    running = container.is_running
    if mode in BUILTIN:
        shape = endpoint_shape(None, None, False)
        if running:
            shape["NetworkID"] = builtin_uid(container.namespace_id, mode)
            shape["EndpointID"] = sha256(f"{container.uid} {mode}".encode()).hexdigest()
        return {mode: shape}
    return {
        endpoint.network.name: endpoint_shape(
            endpoint,
            endpoint.network,
            running,
            () if in_list else names_of(container, endpoint),
            # As moby's until 1.44: compose looks for it.
            () if is_default(endpoint.network) else (container.short_id,),
            wishes_of(container, endpoint.network),
        )
        for endpoint in endpoints
    }


def port_list(container: Container, ports: Iterable[Port]) -> list[JSON]:
    """Ports of the list: published ones and those only exposed; none where it does not run."""
    if not container.is_running or container.settings.get("network_mode") in ("none", "host"):
        return []
    found: list[JSON] = []
    published = set()
    for port in ports:
        if port.published_port:
            published.add(f"{port.container_port}/{port.protocol}")
            found.append(
                {
                    "IP": port.host_ip,
                    "PrivatePort": port.container_port,
                    "PublicPort": port.published_port,
                    "Type": port.protocol,
                }
            )
    for text in _exposed(container):
        if text not in published:
            number, _, protocol = text.partition("/")
            found.append({"PrivatePort": int(number), "Type": protocol})
    return found


def port_map(container: Container, ports: Iterable[Port]) -> JSON:
    """NetworkSettings.Ports: {"80/tcp": [{HostIp, HostPort}] or null}; {} where it does not run."""
    if not container.is_running or container.settings.get("network_mode") in ("none", "host"):
        return {}
    found: JSON = dict.fromkeys(_exposed(container))
    for port in ports:
        if port.published_port:
            key = f"{port.container_port}/{port.protocol}"
            found[key] = [
                *(found.get(key) or ()),
                {"HostIp": port.host_ip, "HostPort": str(port.published_port)},
            ]
    return dict(sorted(found.items()))


def _exposed(container: Container) -> list[str]:
    """`80/tcp`, also where it was written without a protocol."""
    texts = dict.fromkeys(container.settings.get("exposed_ports", ()))
    found = [text if "/" in text else f"{text}/tcp" for text in texts]
    return [text for text in found if text.partition("/")[0].isdecimal()]


def mount_list(container: Container, uses: Iterable[VolumeUse]) -> list[JSON]:
    """Mounts, of the list and of inspect."""
    by_path = {use.destination: use for use in uses}
    host: Mapping[str, Any] = container.settings.get("host", {})
    return [_mount(mount, by_path) for mount in host.get("mounts", ())]


def _mount(mount: Mapping[str, Any], uses: Mapping[str, VolumeUse]) -> JSON:
    kind, path = mount["type"], mount["destination"]
    read_only = bool(mount.get("read_only"))
    words = [*(["ro"] if read_only else []), *(mount.get("options") or ())]
    found: JSON = {"Type": kind}
    if kind == "volume":
        use = uses.get(path)
        found["Name"] = use.volume.name if use else ""
        found["Source"] = mountpoint(use.volume) if use else ""
    elif kind == "bind":
        found["Source"] = mount.get("source", "")
    else:
        found["Source"] = ""
        words = []
    found["Destination"] = path
    if kind == "volume":
        found["Driver"] = "local"
        # moby labels every named local volume, whether there is SELinux or not.
        words = words or (["z"] if mount.get("name") else [])
    found["Mode"] = ",".join(words)
    found["RW"] = not read_only
    found["Propagation"] = (mount.get("propagation") or "rprivate") if kind == "bind" else ""
    return found
