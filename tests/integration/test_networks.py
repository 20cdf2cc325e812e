"""User-defined networks with real containers: names, isolation, several at once, ways out,
connect and disconnect while they run, removal."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from ipaddress import IPv4Interface, IPv4Network

import pytest

from engine.containers.options import EndpointSettings
from engine.errors import Forbidden, InvalidInput, NameTaken, NotFound, PolicyDenied, Unsupported
from engine.models import Container, Event, Namespace, Network, Operation
from engine.network.spec import PortBinding
from engine.services import containers, networks
from engine.services.namespaces import network_default
from engine.services.networks import NetworkRequest
from engine.services.work.host import host
from engine.services.work.networks import network_spec
from engine.services.work.reconcile import reconcile
from tests.services_home import (
    ACTOR,
    answer,
    done,
    ended,
    eventually,
    failed,
    log_of,
    run,
    work,
)

pytestmark = pytest.mark.django_db(transaction=True)

BRIDGE = "com.docker.network.bridge."


def make(namespace: Namespace, name: str, **more: object) -> Network:
    return networks.network_create(namespace, NetworkRequest(name, **more))  # type: ignore[arg-type]


def serve(namespace: Namespace, name: str, network: str, **more: object) -> Container:
    """A container that answers with its name on port 80."""
    script = f"mkdir /w; echo {name} >/w/index.html; exec httpd -f -p 80 -h /w"
    return run(namespace, "sh", "-c", script, name=name, network=network, **more)


def said(namespace: Namespace, script: str, network: str, **more: object) -> str:
    made = run(namespace, "sh", "-c", script, network=network, **more)
    ended(made)
    return log_of(made)


def inside(container: Container, *command: str) -> str:
    """What a command says in the container's network namespace."""
    container.refresh_from_db()
    return subprocess.run(
        ["nsenter", f"--net=/proc/{container.pid}/ns/net", *command],
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def connect(container: Container, network: Network, **wishes: object) -> None:
    container.refresh_from_db()
    asked = EndpointSettings(**wishes)  # type: ignore[arg-type]
    done(networks.container_connect(container, network, ACTOR, asked))


def disconnect(container: Container, network: Network) -> None:
    done(networks.container_disconnect(container, network, ACTOR))


def test_names_aliases_and_isolation(node: Namespace) -> None:
    make(node, "front")
    make(node, "back")
    aliases = {"front": EndpointSettings(aliases=("www",))}
    web = serve(node, "web", "front", hostname="host-of-web", endpoints=aliases)
    address = web.endpoints.get().address
    script = "for n in web www host-of-web; do wget -qO- http://$n/ || echo no $n; done"
    assert said(node, script, "front") == "web\nweb\nweb\n"
    for network in ("back", "bridge"):
        script = f"for n in web {address}; do ping -c1 -W1 $n >/dev/null 2>&1 && echo $n; done"
        assert said(node, script, network) == ""
    events = Event.objects.filter(type="network", attributes__container=web.uid)
    assert [event.action for event in events] == ["connect"]


def test_several_networks_and_the_way_out(node: Namespace) -> None:
    private = make(node, "inside", internal=True)
    late = make(node, "late")
    made = run(
        node,
        "sh",
        "-c",
        "ip -o -4 addr | awk '{print $2, $4}'; ip route | grep default",
        network="inside",
        endpoints={"late": EndpointSettings()},
    )
    ended(made)
    lines = log_of(made).splitlines()
    on = {line.split()[0]: IPv4Interface(line.split()[1]) for line in lines if "/" in line}
    for interface, network in (("eth0", private), ("eth1", late)):
        assert on[interface].network == IPv4Network(network.subnet)
    # What was not asked for is anybody's again.
    kept = made.endpoints.values_list("address", "mac")
    eventually(lambda: list(kept.all()) == [(None, "")] * 2)
    assert lines[-1].startswith(f"default via {late.gateway} dev eth1")
    # Of several with a way out it is the first by name, as Docker's.
    make(node, "early")
    text = said(node, "ip route | grep default", "late", endpoints={"early": EndpointSettings()})
    assert "dev eth1" in text
    assert "default" not in said(node, "ip route", "inside")


def test_connect_and_disconnect_while_it_runs(node: Namespace) -> None:
    first, second = make(node, "first"), make(node, "second", subnet="10.222.64.0/24")
    port = PortBinding(80, "tcp", "127.0.0.1", 0)
    web = serve(node, "web", "first", ports=(port,))
    published = web.ports.get().published_port
    assert published is not None
    eventually(lambda: answer(published) == "web\n")
    connect(web, second, aliases=("store",), ipv4="10.222.64.77")
    assert "10.222.64.77/24" in inside(web, "ip", "-o", "-4", "addr", "show", "eth1")
    assert said(node, "wget -qO- http://store/", "second") == "web\n"
    with pytest.raises(Forbidden, match="already exists in network"):
        networks.container_connect(web, second, ACTOR)
    # The way out and the published port go over to what is left.
    disconnect(web, first)
    assert f"default via {second.gateway} dev eth1" in inside(web, "ip", "route")
    assert answer(published) == "web\n"
    etc = host().config.containers_dir / web.uid / "etc"
    assert f"nameserver {second.gateway}" in (etc / "resolv.conf").read_text()
    assert "10.222.64.77" in (etc / "hosts").read_text()
    disconnect(web, second)
    assert answer(published) == ""
    assert "eth" not in inside(web, "ip", "-o", "link")
    connect(web, first)
    assert answer(published) == "web\n"
    with pytest.raises(Forbidden, match="is not connected to network second"):
        networks.container_disconnect(web, second, ACTOR)
    # What was changed while it ran is so at its next start.
    connect(web, second)
    done(containers.container_stop(web, ACTOR, grace=0))
    web.refresh_from_db()
    done(containers.container_start(web, ACTOR))
    assert said(node, "wget -qO- http://web/", "second") == "web\n"
    actions = [
        event.action for event in Event.objects.filter(type="network", attributes__name="second")
    ]
    assert actions[:3] == ["create", "connect", "connect"]
    assert actions.count("disconnect") >= 2


def test_stopped_containers_and_removal(node: Namespace) -> None:
    own = make(node, "own")
    web = serve(node, "web", "own")
    with pytest.raises(Forbidden, match="has active endpoints"):
        networks.network_remove(own, ACTOR)
    done(containers.container_stop(web, ACTOR, grace=0))
    bridge = own.bridge
    assert bridge in host().network.observe().bridges
    assert networks.prunable(node) == [own]  # who only stands on it does not keep it
    assert done(networks.networks_prune(node, ACTOR)).result == {"networks": ["own"]}
    assert bridge not in host().network.observe().bridges
    web.refresh_from_db()
    assert "no such network: own" in failed(containers.container_start(web, ACTOR))["message"]
    again = make(node, "own", subnet="10.222.65.0/24")
    done(containers.container_start(web, ACTOR))
    web.refresh_from_db()
    assert web.endpoints.get().network == again
    other = make(node, "other")
    done(containers.container_stop(web, ACTOR, grace=0))
    web.refresh_from_db()
    connect(web, other)
    disconnect(web, again)
    done(containers.container_start(web, ACTOR))
    assert said(node, "wget -qO- http://web/", "other") == "web\n"


def test_what_cannot_be(namespace: Namespace) -> None:
    one = make(namespace, "one", subnet="10.222.66.0/24", reserved={"router": "10.222.66.2"})
    free = NetworkRequest("x", subnet="10.222.67.0/24")
    for error, words, request in (
        (NameTaken, "network with name one already exists", NetworkRequest("one")),
        (Forbidden, "predefined bridge network", NetworkRequest("bridge")),
        (InvalidInput, "invalid name", NetworkRequest("")),
        (InvalidInput, "invalid name", NetworkRequest("a/b")),
        (NotFound, 'plugin "foo" not found', NetworkRequest("x", driver="foo")),
        (Forbidden, 'only one instance of "host"', NetworkRequest("x", driver="host")),
        (Unsupported, "overlay", NetworkRequest("x", driver="overlay")),
        (Forbidden, "Pool overlaps", NetworkRequest("x", subnet="10.222.66.128/25")),
        (Forbidden, "Pool overlaps", NetworkRequest("x", subnet="10.222.0.0/16")),
        (PolicyDenied, "may not use", NetworkRequest("x", subnet="8.8.8.0/24")),
        (InvalidInput, "invalid CIDR", NetworkRequest("x", subnet="bogus")),
        (Unsupported, "IPv6", NetworkRequest("x", subnet="fd00::/64")),
        (InvalidInput, "it should be", NetworkRequest("x", subnet="10.222.67.5/24")),
        (InvalidInput, "No available", NetworkRequest("x", subnet="10.222.67.0/31")),
        (InvalidInput, "out of range", replace(free, gateway="10.1.1.1")),
        (InvalidInput, "already in use", replace(free, gateway="10.222.67.0")),
        (InvalidInput, "should be within", replace(free, ip_range="10.1.0.0/25")),
        (InvalidInput, "aux-address", replace(free, reserved={"a": "10.1.1.1"})),
        (InvalidInput, "Atoi", NetworkRequest("x", options={networks.MTU: "zz"})),
        (Unsupported, "bridge.name", replace(free, options={f"{BRIDGE}name": "br0"})),
    ):  # fmt: skip
        with pytest.raises(error, match=words):
            networks.network_create(namespace, request)
    assert networks.prunable(namespace) == [one]
    with pytest.raises(Forbidden, match="pre-defined"):
        networks.network_remove(network_default(namespace), ACTOR)
    for name in (one.name, one.uid, one.uid[:6]):
        assert networks.find_network(namespace, name) == one
    assert not isinstance(networks.find_any(namespace, "host"), Network)
    assert done(networks.networks_prune(namespace, ACTOR)).result == {"networks": ["one"]}


def test_addresses_and_who_may_have_them(node: Namespace) -> None:
    own = make(node, "own", subnet="10.222.68.0/24", ip_range="10.222.68.128/30",
               reserved={"a": "10.222.68.128"})  # fmt: skip
    first = run(node, "sleep", "60", network="own")
    assert first.endpoints.get().address == "10.222.68.129"
    wishes = {"own": EndpointSettings(ipv4="10.222.68.9", mac="02:42:00:00:00:09")}
    text = said(node, "ip addr show eth0", "own", endpoints=wishes)
    assert "10.222.68.9/24" in text and "02:42:00:00:00:09" in text
    for wish, words in (
        ("10.222.68.129", "Address already in use"),
        ("10.222.68.1", "Address already in use"),
        ("1.2.3.4", "does not belong"),
    ):
        request = containers.ContainerRequest(
            image="node", command=("true",), network="own",
            endpoints={"own": EndpointSettings(ipv4=wish)},
        )  # fmt: skip
        with pytest.raises((Forbidden, InvalidInput), match=words):
            containers.container_create(node, request, ACTOR)
    for network, wish, words in (
        ("bridge", EndpointSettings(aliases=("x",)), "network-scoped alias"),
        ("bridge", EndpointSettings(ipv4="10.1.1.1"), "user defined networks only"),
    ):
        request = containers.ContainerRequest(
            image="node", command=("true",), network=network, endpoints={network: wish}
        )
        with pytest.raises(InvalidInput, match=words):
            containers.container_create(node, request, ACTOR)
    none = run(node, "sleep", "60", network="none")
    with pytest.raises(InvalidInput, match=r"private \(none\) mode"):
        networks.container_connect(none, own, ACTOR)
    # A row that somebody forged: the worker looks again.
    Network.objects.filter(pk=own.pk).update(subnet="8.8.8.0/24", gateway="8.8.8.1")
    forged = Network.objects.get(pk=own.pk)
    with pytest.raises(PolicyDenied):
        network_spec(forged)
    Network.objects.filter(pk=own.pk).update(subnet="10.222.68.0/24", gateway="10.222.68.1")


def test_only_what_runs_holds_an_address(node: Namespace) -> None:
    own = make(node, "own", subnet="10.222.69.0/24", ip_range="10.222.69.128/31")
    request = containers.ContainerRequest(image="node", command=("sleep", "60"), network="own")
    for _ in range(5):
        done(containers.container_create(node, request, ACTOR)[1])
    first, second, third, *_ = Container.objects.order_by("pk")
    done(containers.container_start(first, ACTOR))
    done(containers.container_start(second, ACTOR))
    addresses = own.endpoints.order_by("container").values_list("address", flat=True)
    assert list(addresses) == ["10.222.69.128", "10.222.69.129", None, None, None]
    assert "no free address left" in failed(containers.container_start(third, ACTOR))["message"]
    first.refresh_from_db()
    done(containers.container_stop(first, ACTOR, grace=0))
    done(containers.container_start(third, ACTOR))
    assert list(addresses.all()) == [None, "10.222.69.129", "10.222.69.128", None, None]


def test_a_removal_that_was_interrupted(node: Namespace) -> None:
    own = make(node, "own")
    ended(run(node, "true", network="own"))
    for container in Container.objects.all():
        done(containers.container_remove(container, ACTOR))
    bridge = own.bridge
    own.delete()
    assert bridge in host().network.observe().bridges
    assert any("without a row removed" in line for line in reconcile())
    assert bridge not in host().network.observe().bridges


def test_a_network_that_went_meanwhile(node: Namespace) -> None:
    own = make(node, "own")
    made = run(node, "sleep", "60")
    asked = networks.container_connect(made, own, ACTOR)
    done(networks.network_remove(own, ACTOR))
    assert work(asked).state == Operation.State.FAILED
    assert made.endpoints.count() == 1
