"""RUN steps on a network: an address for the build, plumbed before the command starts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from engine.config import EngineConfig
from engine.errors import StepFailed
from engine.network.addresses import gateway_of, next_subnet
from engine.network.spec import NetworkSpec
from tests.builder import Builder
from tests.pools import free_pool


@pytest.fixture
def connected(tmp_path: Path) -> Iterator[Builder]:
    home = tmp_path / "home"
    home.mkdir()
    config = EngineConfig(home=home)
    subnet = next_subnet(IPv4Network(free_pool()), [])
    network = NetworkSpec(
        id=hashlib.sha256(str(home).encode()).hexdigest(),
        name="bridge",
        subnet=subnet,
        gateway=gateway_of(subnet),
        bridge=f"{config.bridge_prefix}0",
    )
    made = Builder(home, network)
    try:
        yield made
        left = made.leftovers()
        assert made.networks is not None
        attached = [one.id for one in made.networks.observe().containers if one.attachments]
        veths = made.networks.observe().veths
    finally:
        made.close()
    assert (left, attached, veths) == ([], [], frozenset())


def test_each_step_is_connected_with_one_address(connected: Builder) -> None:
    assert connected.engine.network is not None
    network = connected.engine.network()
    assert network is not None
    built = connected.build(
        "FROM base\nRUN ip -o addr show eth0 && ip route && cat /etc/resolv.conf /etc/hosts\n"
        f"RUN ping -c 1 -W 5 {network.gateway}\nRUN --network=none ip -o link\n"
    )
    first, pinged, alone = (
        "".join(event["d"] for event in built.log.of("out") if event["n"] == n) for n in (2, 3, 4)
    )
    address = next(word for word in first.split() if word.endswith(f"/{network.subnet.prefixlen}"))
    assert f"default via {network.gateway}" in first
    assert f"nameserver {network.gateway}" in first
    assert f"{address.split('/')[0]}\tbuild" in first
    assert "1 packets received" in pinged
    assert "eth0" not in alone
    assert connected.leases.asked == ["build-1"]


def test_a_failing_step_gives_everything_back(connected: Builder) -> None:
    with pytest.raises(StepFailed) as caught:
        connected.build("FROM base\nRUN ip addr show eth0; exit 1\n")
    connected.snapshots.remove(str(caught.value.context["snapshot"]))


def test_a_cached_build_takes_no_address(connected: Builder) -> None:
    connected.build("FROM base\nRUN true\n")
    connected.leases.asked.clear()
    connected.build("FROM base\nRUN true\n")
    assert connected.leases.asked == []
