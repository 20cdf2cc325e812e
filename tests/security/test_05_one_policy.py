"""Case 5: one policy decides, for what is asked for and for what a row says afterwards.

The ceiling of these homes is a new one's: whatever reaches beyond it is refused by services, and
by root's worker where a row asks for it that services never saw.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from engine.containers.codec import encode
from engine.containers.layout import ContainerDir
from engine.containers.options import Device, HostOptions, Limits, Mount
from engine.errors import NotFound, PolicyDenied
from engine.models import Container, Namespace, Operation
from engine.services import containers, operations
from engine.services.namespaces import namespace_create
from engine.services.work.host import host
from tests.services_home import ACTOR, done, failed, run

pytestmark = pytest.mark.django_db(transaction=True)

BEYOND = [
    HostOptions(privileged=True),
    HostOptions(pid_mode="host"),
    HostOptions(ipc_mode="host"),
    HostOptions(uts_mode="host"),
    HostOptions(cap_add=("SYS_ADMIN",)),
    HostOptions(cap_add=("ALL",)),
    HostOptions(security_opt=("seccomp=unconfined",)),
    HostOptions(security_opt=('seccomp={"defaultAction":"SCMP_ACT_ALLOW"}',)),
    HostOptions(devices=(Device("/dev/kmsg", "/dev/kmsg"),)),
    HostOptions(mounts=(Mount("bind", "/host", source="/"),)),
    HostOptions(oom_score_adj=-900),
]


def forged(container: Container, **changes: Any) -> Container:
    Container.objects.filter(pk=container.pk).update(settings={**container.settings, **changes})
    return container


def start(container: Container) -> Operation:
    return operations.submit(
        Operation.Kind.CONTAINER_START, container.namespace, actor=ACTOR, target=str(container.pk)
    )


@pytest.fixture
def plain(node: Namespace) -> Iterator[Container]:
    """A row that asks for nothing; its folder is not laid out yet."""
    request = containers.ContainerRequest(image="node", command=("sleep", "60"))
    made = containers.container_new(node, request, ACTOR)
    yield made
    done(containers.container_remove(made, ACTOR))


def test_beyond_the_ceiling_nothing_starts(node: Namespace, plain: Container) -> None:
    for beyond in BEYOND:
        request = containers.ContainerRequest(image="node", command=("true",), host=beyond)
        with pytest.raises(PolicyDenied):
            containers.container_new(node, request, ACTOR)
        error = failed(start(forged(plain, host=encode(beyond))))
        assert error["id"] == "policy-denied", (beyond, error)
    assert Container.objects.count() == 1
    assert not ContainerDir(host().config, plain.uid).settings.exists()


def test_the_hosts_network_is_one_of_them(node: Namespace, plain: Container) -> None:
    request = containers.ContainerRequest(image="node", command=("true",), network="host")
    with pytest.raises(PolicyDenied):
        containers.container_new(node, request, ACTOR)
    assert failed(start(forged(plain, network_mode="host")))["id"] == "policy-denied"


def test_namespaces_are_shared_within_a_team_only(node: Namespace, plain: Container) -> None:
    stranger = namespace_create("stranger")
    mode = f"container:{plain.uid}"
    request = containers.ContainerRequest(
        image="node", command=("true",), host=HostOptions(pid_mode=mode)
    )
    made = containers.container_new(node, request, ACTOR)
    assert made.settings["host"]["pid_mode"] == mode
    done(containers.container_remove(made, ACTOR))
    Container.objects.filter(pk=plain.pk).update(namespace=stranger)
    with pytest.raises(NotFound):
        containers.container_new(node, request, ACTOR)
    made = containers.container_new(
        node, containers.ContainerRequest(image="node", command=("true",)), ACTOR
    )
    for changes in ({"host": {"pid_mode": mode}}, {"network_mode": mode}):
        assert failed(start(forged(made, **changes)))["id"] == "not-found"
    done(containers.container_remove(made, ACTOR))
    Container.objects.filter(pk=plain.pk).update(namespace=node)


def test_an_update_is_held_to_it_too(node: Namespace) -> None:
    container = run(node, "sleep", "60")
    operation = containers.container_update(container, ACTOR, limits=Limits(pids=50))
    done(operation)
    container.refresh_from_db()
    assert container.settings["host"]["limits"] == {"pids": 50}
    forged(container, host={"privileged": True})
    wrong = operations.submit(
        Operation.Kind.CONTAINER_UPDATE,
        node,
        actor=ACTOR,
        target=str(container.pk),
        args={"limits": {"pids": 60}},
    )
    assert failed(wrong)["id"] == "policy-denied"
