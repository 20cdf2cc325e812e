"""Namespaces, the node, and each namespace's default network: rows that all else hangs on."""

from __future__ import annotations

from ipaddress import IPv4Network

from django.conf import settings
from django.db import IntegrityError, connection, transaction

from engine.models import Namespace, Network, Node
from engine.network.addresses import next_subnet
from engine.services.addresses import DEFAULT_NETWORK as DEFAULT_NETWORK


def node_local() -> Node:
    return Node.objects.get_or_create(name="local")[0]


def namespace_create(name: str) -> Namespace:
    """Idempotent."""
    with transaction.atomic():
        namespace = Namespace.objects.get_or_create(name=name)[0]
        network_default(namespace)
    return namespace


def lock(namespace: Namespace) -> None:
    """Until the transaction ends nobody else makes anything in it that has a name or a number of
    its own there. SQLite has one writer at a time anyway."""
    if connection.features.has_select_for_update:
        Namespace.objects.select_for_update(no_key=True).get(pk=namespace.pk)


def network_default(namespace: Namespace) -> Network:
    """The namespace's bridge network, made at its first use from the home's address pool."""
    found = Network.objects.filter(namespace=namespace, name=DEFAULT_NETWORK).first()
    if found is None:
        with transaction.atomic():
            lock(namespace)
            found = Network.objects.filter(namespace=namespace, name=DEFAULT_NETWORK).first()
            found = found or _default_create(namespace)
    return found


def _default_create(namespace: Namespace) -> Network:
    """A row only; the bridge itself appears when a container first starts on it.

    Two at once may choose the same subnet; the constraint lets one win, the other looks again.
    """
    config = settings.ENGINE
    while True:
        taken = [IPv4Network(subnet) for subnet in Network.objects.values_list("subnet", flat=True)]
        subnet = next_subnet(config.address_pool, taken)
        index = (int(subnet.network_address) - int(config.address_pool.network_address)) >> 8
        try:
            with transaction.atomic():
                return Network.objects.create(
                    namespace=namespace,
                    name=DEFAULT_NETWORK,
                    subnet=str(subnet),
                    gateway=str(subnet.network_address + 1),
                    bridge=f"{config.bridge_prefix}{index:x}",
                )
        except IntegrityError:
            if Network.objects.filter(namespace=namespace, name=DEFAULT_NETWORK).exists():
                raise
