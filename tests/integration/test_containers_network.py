"""Containers on a real bridge: addresses, names, published ports, and what is undone."""

from __future__ import annotations

import random
import signal
import socket
import urllib.request
from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from engine.errors import PortTaken
from engine.network.addresses import mac_for, next_address
from engine.network.manager import NetworkManager
from engine.network.spec import Attachment, NetworkSpec, PortBinding
from engine.runtime import cgroups
from tests.machine import Machine

SERVER = "echo hello > /index.html; httpd -f -h / -p 80"


class Connected(Machine):
    """A machine with one network and a manager for it."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.network = NetworkManager(self.config)
        super().use(self.network)
        third, fourth = random.randrange(256), random.randrange(16) * 16
        subnet = IPv4Network((f"10.{64 + random.randrange(64)}.{third}.{fourth}", 28))
        self.spec = NetworkSpec(
            id="n1",
            name="bridge",
            subnet=subnet,
            gateway=subnet[1],
            bridge=f"{self.config.bridge_prefix}0",
        )
        self.network.ensure(self.spec)
        self._taken = [subnet[1]]

    def attachment(self, *names: str) -> Attachment:
        address = next_address(self.spec.subnet, self._taken)
        self._taken.append(address)
        return Attachment(self.spec, address, mac_for(address), names=names)

    def close(self) -> None:
        try:
            super().close()
        finally:
            self.network.release_all()


@pytest.fixture
def connected(tmp_path: Path) -> Iterator[Connected]:
    made = Connected(tmp_path / "home")
    try:
        yield made
    finally:
        made.close()


def fetch(port: int) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/index.html", timeout=5) as answer:
        content: bytes = answer.read()
        return content


def test_a_published_port_answers_until_the_end(connected: Connected) -> None:
    id = connected.create(SERVER, ports=(PortBinding(80, host_ip="127.0.0.1"),))
    started = connected.start(id, attachments=[connected.attachment("web")])
    (port,) = started.ports
    assert port.host_port > 0
    client = connected.create(
        "until wget -qO- http://web/index.html; do sleep 0.05; done; cat /etc/hosts",
        hostname="client",
    )
    attachment = connected.attachment("client")
    connected.start(client, attachments=[attachment])
    assert connected.finish(client).code == 0
    text = connected.log(connected.directory(client).log).decode()
    assert text.startswith("hello\n") and f"{attachment.address}\tclient" in text
    assert fetch(port.host_port) == b"hello\n"
    # conmon alone holds the port now: nobody else can have it.
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", port.host_port))
    assert connected.containers.observe(id).started == started
    connected.containers.stop(id, 1, signal.SIGKILL, 0)
    connected.finish(id)
    with socket.socket() as other:
        other.bind(("127.0.0.1", port.host_port))
    observed = connected.network.observe()
    assert observed.veths == frozenset() and observed.published == ()


def test_a_taken_port_undoes_the_start(connected: Connected) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        id = connected.create(
            SERVER, ports=(PortBinding(80, host_ip="127.0.0.1", host_port=taken),)
        )
        with pytest.raises(PortTaken) as caught:
            connected.start(id, attachments=[connected.attachment("web")])
        assert caught.value.context["port"] == taken
        assert connected.containers.observe(id).status == "created"
        assert not connected.mounted(id) and connected.runtime.list() == frozenset()
    connected.start(id, attachments=[connected.attachment("web")])
    connected.containers.stop(id, 1, signal.SIGKILL, 0)
    connected.finish(id)


def test_a_network_that_fails_undoes_the_start(
    connected: Connected, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = connected.create(SERVER, ports=(PortBinding(80, host_ip="127.0.0.1"),))

    def broken(*_: object) -> None:
        raise RuntimeError("no nft today")

    with monkeypatch.context() as patched:
        patched.setattr(connected.network, "publish", broken)
        with pytest.raises(RuntimeError, match="no nft today"):
            connected.start(id, attachments=[connected.attachment("web")])
    assert connected.containers.observe(id).status == "created"
    assert not connected.mounted(id) and connected.runtime.list() == frozenset()
    assert cgroups.pids(f"/{connected.config.cgroup_parent}") == frozenset()
    assert connected.network.observe().veths == frozenset()
