from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from engine.errors import InvalidInput
from engine.network.spec import Attachment, NetworkSpec, PortBinding, PublishedPort

NETWORK = NetworkSpec(
    "n1", "default", IPv4Network("10.64.0.0/24"), IPv4Address("10.64.0.1"), "qs123456-a"
)
ATTACHMENT = Attachment(
    NETWORK,
    IPv4Address("10.64.0.2"),
    "02:42:0a:40:00:02",
    names=("web", "web.alias", "0123456789ab"),
    link_local=(IPv4Address("169.254.8.8"),),
    links=(("other", "db"),),
)


def test_values_survive_json() -> None:
    port = PublishedPort("127.0.0.1", 3000, 80, "tcp")
    assert NetworkSpec.from_json(json.loads(json.dumps(NETWORK.to_json()))) == NETWORK
    assert Attachment.from_json(json.loads(json.dumps(ATTACHMENT.to_json()))) == ATTACHMENT
    assert PublishedPort.from_json(json.loads(json.dumps(port.to_json()))) == port


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "../x"},
        {"id": ""},
        {"bridge": "a b"},
        {"bridge": "x" * 16},
        {"bridge": 'a"; flush ruleset'},
        {"gateway": IPv4Address("10.65.0.1")},
        {"gateway": IPv4Address("10.64.0.0")},
        {"gateway": IPv4Address("10.64.0.255")},
    ],
)
def test_a_network_that_cannot_be_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        NetworkSpec.from_json({**NETWORK.to_json(), **{k: str(v) for k, v in changes.items()}})


@pytest.mark.parametrize(
    "changes",
    [
        {"address": "10.65.0.2"},
        {"address": "10.64.0.1"},
        {"mac": "02:42"},
        {"interface": "eth0/../../all"},
        # each of these would end or forge a line of aardvark-dns's file, and one line it cannot
        # read ends it for every container
        {"names": ["web db"]},
        {"names": ["web\nid 10.64.0.9  bank"]},
        {"names": ["web,bank"]},
        {"names": [""]},
        {"names": ["web..x"]},
        {"names": ["-web"]},
        {"names": ["x" * 64]},
        {"names": [".".join(["x" * 60] * 5)]},
    ],
)
def test_an_attachment_that_cannot_be_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        Attachment.from_json({**ATTACHMENT.to_json(), **changes})


@pytest.mark.parametrize(
    "arguments",
    [
        {"container_port": 0},
        {"container_port": 70000},
        {"container_port": 80, "host_port": -1},
        {"container_port": 80, "protocol": "sctp"},
        {"container_port": 80, "host_ip": "::1"},
        {"container_port": 80, "host_ip": "localhost"},
        {"container_port": 80, "host_ip": ""},
    ],
)
def test_a_binding_that_cannot_be_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        PortBinding(**arguments)
