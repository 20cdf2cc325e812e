"""Networks: list, create, inspect, connect, disconnect, remove, prune."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Network
from typing import Any

from aiohttp import web
from django.utils import timezone

from engine.api.binds import refuse_unread
from engine.api.call import Call, Routes, reply
from engine.api.fields import Fields
from engine.api.filtering import known, truth
from engine.api.operations import ended
from engine.api.words import point, timestamp
from engine.containers.options import EndpointSettings
from engine.errors import Forbidden, InvalidInput, NotFound, Unsupported
from engine.models import Container, Endpoint, Namespace, Network
from engine.services import labels, namespaces, networks
from engine.services.lookup import find_container
from engine.services.networks import BUILTIN, Builtin, NetworkRequest
from engine.services.orm import orm

routes = Routes()

JSON = dict[str, Any]
_FILTERS = ("dangling", "driver", "id", "label", "name", "scope", "type")
_PRUNE_FILTERS = ("label", "label!", "until")
_DANGLING = 'invalid value for filter \'dangling\', must be "true" (or "1"), or "false" (or "0")'
_KINDS = ("builtin", "custom")
# Of an endpoint, what the engine says and nobody can ask for.
_SHOWN = (
    *("DNSNames", "EndpointID", "Gateway", "GlobalIPv6Address", "GlobalIPv6PrefixLen"),
    *("IPAddress", "IPPrefixLen", "IPv6Gateway", "NetworkID"),
)
# Of the namespace's own bridge, as `docker network inspect bridge` shows them.
_DEFAULT_OPTIONS = {
    "com.docker.network.bridge.default_bridge": "true",
    "com.docker.network.bridge.enable_icc": "true",
    "com.docker.network.bridge.enable_ip_masquerade": "true",
    "com.docker.network.bridge.host_binding_ipv4": "0.0.0.0",
    "com.docker.network.driver.mtu": "1500",
}


@routes.get("/networks")
async def network_list(call: Call) -> web.Response:
    filters = call.filters()
    known(filters, _FILTERS)
    return reply(await orm(_listed, call.namespace, filters))


@routes.post("/networks/create")
async def network_create(call: Call) -> web.Response:
    request = _read(Fields(await call.json(), "NetworkCreateRequest"))
    network = await orm(networks.network_create, call.namespace, request)
    return reply({"Id": network.uid, "Warning": ""}, 201)


@routes.get("/networks/{name:.+}")
async def network_inspect(call: Call) -> web.Response:
    found = await orm(_find, call.namespace, call.path("name"), call.text("scope"))
    return reply(await orm(shape, found, True))


@routes.post("/networks/prune")
async def networks_prune(call: Call) -> web.Response:
    filters = call.filters()
    known(filters, _PRUNE_FILTERS)
    untils = filters.get("until", [])
    if len(untils) > 1:
        raise InvalidInput("more than one until filter specified")
    until = point(untils[0], timezone.now()) if untils else None
    if untils and until is None:
        raise InvalidInput(f'failed to parse value as time or duration: "{untils[0]}"')
    operation = await ended(
        await orm(
            networks.networks_prune,
            call.namespace,
            call.actor,
            until=until,
            label=filters.get("label", ()),
            label_not=filters.get("label!", ()),
        )
    )
    return reply({"NetworksDeleted": operation.result["networks"] or None})


@routes.post("/networks/{name}/connect")
async def network_connect(call: Call) -> web.Response:
    body = Fields(await call.json(), "ConnectOptions")
    wishes = read_endpoint(body.object("EndpointConfig"))
    network, container = await orm(_both, call.namespace, call.path("name"), body)
    refuse_unread(body, "ConnectOptions")
    await ended(await orm(networks.container_connect, container, network, call.actor, wishes))
    return web.Response(status=200)


@routes.post("/networks/{name}/disconnect")
async def network_disconnect(call: Call) -> web.Response:
    body = Fields(await call.json(), "DisconnectOptions")
    network, container = await orm(_both, call.namespace, call.path("name"), body)
    force = body.flag("Force")
    refuse_unread(body, "DisconnectOptions")
    await ended(
        await orm(networks.container_disconnect, container, network, call.actor, force=force)
    )
    return web.Response(status=200)


@routes.delete("/networks/{name}")
async def network_remove(call: Call) -> web.Response:
    network = await orm(networks.find_any, call.namespace, call.path("name"))
    await ended(await orm(networks.network_remove, network, call.actor))
    return web.Response(status=204)


def read_endpoint(fields: Fields) -> EndpointSettings:
    """One of EndpointsConfig. What it also holds when it comes back out of an inspect is passed
    over. Raises InvalidInput, Unsupported for what we have not."""
    ipam = fields.object("IPAMConfig")
    if ipam.raw("IPv6Address"):
        raise Unsupported("the endpoint's IPv6Address is not supported")
    if fields.number("GwPriority"):
        raise Unsupported("the endpoint's GwPriority is not supported")
    for key in _SHOWN:
        fields.raw(key)
    settings = EndpointSettings(
        aliases=fields.texts("Aliases"),
        ipv4=ipam.text("IPv4Address"),
        mac="" if fields.raw("EndpointID") else fields.text("MacAddress"),
        links=fields.texts("Links"),
        link_local=ipam.texts("LinkLocalIPs"),
        driver_options=fields.mapping("DriverOpts"),
    )
    refuse_unread(ipam, "IPAMConfig")
    refuse_unread(fields, "EndpointSettings")
    return settings


def shape(found: Network | Builtin, containers: bool) -> JSON:
    """As inspect shows it; `containers` those that are on it now, else none."""
    values: JSON = {
        "Name": found.name,
        "Id": found.uid,
        "Created": timestamp(found.created_at),
        "Scope": "local",
        "Driver": "bridge",
        "EnableIPv4": True,
        "EnableIPv6": False,
        "IPAM": {"Driver": "default", "Options": None, "Config": []},
        "Internal": False,
        "Attachable": False,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {},
        "Options": {},
        "Labels": {},
    }
    if isinstance(found, Builtin):
        return {
            **values,
            "Driver": found.driver,
            "Containers": _sharing(found) if containers else {},
        }
    default = networks.is_default(found)
    return {
        **values,
        "IPAM": {
            "Driver": "default",
            "Options": networks.ipam_options(found),
            "Config": [networks.ipam_config(found)],
        },
        "Internal": found.internal,
        "Attachable": found.attachable,
        "Containers": _on(found) if containers else {},
        "Options": (
            {**_DEFAULT_OPTIONS, "com.docker.network.bridge.name": found.bridge}
            if default
            else networks.driver_options(found)
        ),
        "Labels": dict(found.labels),
    }


def _on(network: Network) -> JSON:
    """What runs on it, by container id: what is stopped has no endpoint in Docker."""
    prefix = IPv4Network(network.subnet).prefixlen
    rows = network.endpoints.exclude(container=None).select_related("container").order_by("pk")
    return {
        endpoint.container.uid: _member(endpoint.container, endpoint, prefix)
        for endpoint in rows
        if endpoint.container is not None and endpoint.container.is_running
    }


def _member(container: Container, endpoint: Endpoint | None, prefix: int) -> JSON:
    return {
        "Name": container.name,
        "EndpointID": endpoint.uid if endpoint else "",
        "MacAddress": endpoint.mac if endpoint else "",
        "IPv4Address": f"{endpoint.address}/{prefix}" if endpoint else "",
        "IPv6Address": "",
    }


def _sharing(found: Builtin) -> JSON:
    rows = Container.objects.for_namespace(found.namespace).running()
    return {
        row.uid: _member(row, None, 0)
        for row in rows.filter(settings__network_mode=found.name).order_by("pk")
    }


def _find(namespace: Namespace, name: str, scope: str) -> Network | Builtin:
    found = networks.find_any(namespace, name)
    if scope not in ("", "local"):
        raise NotFound(f"no such network: {name}", kind="network", name=name)
    return found


def _both(namespace: Namespace, network: str, body: Fields) -> tuple[Network | Builtin, Container]:
    found = networks.find_any(namespace, network)
    name = body.text("Container")
    if not name:
        raise InvalidInput('invalid name or ID supplied: ""')
    return found, find_container(namespace, name)


def _listed(namespace: Namespace, filters: Mapping[str, list[str]]) -> list[JSON]:
    namespaces.network_default(namespace)
    rows = list(Network.objects.filter(namespace=namespace).order_by("created_at", "pk"))
    used = set(
        Endpoint.objects.filter(network__in=rows)
        .exclude(container=None)
        .values_list("network_id", flat=True)
    )
    dangling = truth("dangling", filters.get("dangling", ()), _DANGLING)
    kinds = filters.get("type", ())
    for kind in kinds:
        if kind not in _KINDS:
            raise InvalidInput(f"invalid filter: 'type'='{kind}'")
    every: Iterable[Network | Builtin] = (
        *rows,
        *(Builtin.of(namespace, name) for name in BUILTIN),
    )
    return [
        shape(one, False)
        for one in every
        if _fits(one, filters)
        and (not kinds or _kind(one) in kinds)
        and (dangling is None or dangling == _dangles(one, used))
    ]


def _fits(one: Network | Builtin, filters: Mapping[str, list[str]]) -> bool:
    driver = one.driver if isinstance(one, Builtin) else networks.DRIVER
    held = {} if isinstance(one, Builtin) else one.labels
    return (
        (not (found := filters.get("name")) or any(text in one.name for text in found))
        and (not (found := filters.get("id")) or any(text in one.uid for text in found))
        and (not (found := filters.get("driver")) or driver in found)
        and (not (found := filters.get("scope")) or "local" in found)
        and labels.match(held, filters.get("label", ()))
    )


def _kind(one: Network | Builtin) -> str:
    return "builtin" if isinstance(one, Builtin) or networks.is_default(one) else "custom"


def _dangles(one: Network | Builtin, used: set[int]) -> bool:
    return _kind(one) == "custom" and isinstance(one, Network) and one.pk not in used


def _read(body: Fields) -> NetworkRequest:
    """What `docker network create` says. Raises InvalidInput, Forbidden, Unsupported."""
    if body.flag("Ingress"):
        raise Forbidden("Ingress network can only be global scope network")
    if body.text("Scope") == "swarm":
        raise Forbidden("cannot create a swarm scoped network when swarm is not active")
    if body.text("Scope") not in ("", "local"):
        raise Unsupported("networks of a scope other than local are not supported")
    if body.flag("EnableIPv6"):
        raise Unsupported("IPv6 networks are not supported", hint="use IPv4")
    if body.choice("EnableIPv4") is False:
        raise Unsupported("networks without IPv4 are not supported")
    if body.flag("ConfigOnly") or body.object("ConfigFrom").text("Network"):
        raise Unsupported("networks that are a configuration only are not supported")
    ipam = body.object("IPAM")
    if ipam.text("Driver") not in ("", "default"):
        raise NotFound(f'plugin "{ipam.text("Driver")}" not found')
    configs = list(ipam.objects("Config"))
    if len(configs) > 1:
        raise Forbidden("bridge driver doesn't support multiple subnets")
    config = configs[0] if configs else Fields({}, "IPAM.Config")
    body.raw("CheckDuplicate")  # two of one name are never made, as in dockerd since 25
    request = NetworkRequest(
        name=body.text("Name"),
        driver=body.text("Driver") or networks.DRIVER,
        subnet=config.text("Subnet"),
        gateway=config.text("Gateway"),
        ip_range=config.text("IPRange"),
        reserved=config.mapping("AuxiliaryAddresses"),
        ipam_options=None if ipam.raw("Options") is None else ipam.mapping("Options"),
        internal=body.flag("Internal"),
        attachable=body.flag("Attachable"),
        labels=body.mapping("Labels"),
        options=body.mapping("Options"),
    )
    for fields, name in ((config, "IPAM.Config"), (ipam, "IPAM"), (body, "NetworkCreateRequest")):
        refuse_unread(fields, name)
    return request
