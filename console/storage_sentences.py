"""Sentences for errors of volumes and networks, by the shape of the engine's text."""

from __future__ import annotations

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

SENTENCES: tuple[tuple[str, Promise, Promise | None], ...] = (
    (
        r"create (?P<name>.*): volume name is too short.*",
        _("“%(name)s” is too short for a volume's name."),
        _("Two letters or digits at least."),
    ),
    (
        r"create (?P<name>.*): \".*\" includes invalid characters for a local volume name.*",
        _("“%(name)s” cannot be a volume's name."),
        _("Letters, digits, _ . and - are allowed; begin with a letter or digit."),
    ),
    (
        r"no such volume: (?P<name>.*)",
        _("There is no volume “%(name)s”."),
        _("It may have been removed meanwhile."),
    ),
    (
        r"remove (?P<name>.*): volume is in use - .*",
        _("Volume “%(name)s” has a container."),
        _("Remove its containers first."),
    ),
    (
        r"Duplicate mount point: (?P<path>.*)",
        _("Two mounts are to lie at %(path)s."),
        _("Give each a path of its own."),
    ),
    (
        r"invalid mount config for type \"bind\": bind source path does not exist: (?P<path>.*)",
        _("There is no “%(path)s” on this machine."),
        None,
    ),
    (
        r"no such network: (?P<name>.*)",
        _("There is no network “%(name)s”."),
        _("It may have been removed meanwhile."),
    ),
    (
        r"operation is not permitted on predefined (?P<name>.*) network ",
        _("“%(name)s” is a pre-made network's name."),
        _("Choose another name."),
    ),
    (
        r"(?P<name>.*) is a pre-defined network and cannot be removed",
        _("“%(name)s” is pre-made and stays."),
        None,
    ),
    (
        r"invalid name: (?P<name>.*)",
        _("“%(name)s” cannot be a network's name."),
        _("At most 255 characters, without / and control characters."),
    ),
    (
        r"Pool overlaps with other one on this address space",
        _("These addresses are used by another network, or this machine has a route to them."),
        _("Choose others, or leave the subnet empty."),
    ),
    (
        r"networks may not use the addresses (?P<subnet>\S+) on this machine",
        _("Networks may not use the addresses %(subnet)s here."),
        _("Choose private ones, or leave the subnet empty."),
    ),
    (
        r"Invalid subnet .*: invalid CIDR address: (?P<subnet>.*)",
        _("“%(subnet)s” is no subnet."),
        _("Write it like 10.20.0.0/24."),
    ),
    (
        r"invalid subnet (?P<subnet>.*): it should be (?P<right>.*)",
        _("“%(subnet)s” is no subnet: it should be %(right)s."),
        None,
    ),
    (
        r"failed to allocate gateway \(\): .*",
        _("The subnet is too small."),
        _("A /30 at least."),
    ),
    (
        r"(?:failed to allocate gateway \(.+\): .*|invalid gateway address .* in Ipam .*)",
        _("The gateway is no host address of the subnet."),
        _("Leave it empty for the first one."),
    ),
    (
        r"error while removing network: network (?P<name>.*) id \S+ has active endpoints",
        _("Containers run on network “%(name)s”."),
        _("Stop them or disconnect them first."),
    ),
    (
        r"endpoint with name (?P<name>.*) already exists in network (?P<network>.*)",
        _("Container “%(name)s” is on network “%(network)s” already."),
        None,
    ),
    (
        r"container \S+ is not connected to network (?P<network>.*)",
        _("The container is not on network “%(network)s”."),
        None,
    ),
    (
        r"network-scoped alias is supported only for containers in user defined networks",
        _("On the pre-made network a container has no further names."),
        _("Make a network of your own."),
    ),
    (
        r"user specified IP address is supported .*",
        _("An address can be chosen only on a network whose subnet somebody chose."),
        _("Leave the address empty."),
    ),
    (
        r"Invalid address (?P<address>.*): It does not belong to any of this network's subnets",
        _("%(address)s is not in the network's subnet."),
        None,
    ),
    (
        r"Address already in use",
        _("That address is somebody's already."),
        _("Choose another, or leave it empty."),
    ),
    (
        r"not a name to resolve: (?P<name>.*)",
        _("“%(name)s” cannot be a name on a network."),
        _("Letters, digits, _ and inner - are allowed, with dots between."),
    ),
)
