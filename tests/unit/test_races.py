"""Two people at once: what exists once is made once, and whoever comes second is told so. On SQLite
here, on PostgreSQL in tests/integration/test_postgres.py, which lets transactions overlap."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import TypeVar

import pytest
from django.db import connections
from django.utils import timezone

from engine.errors import NameTaken, QuaysideError
from engine.models import Build, Container, Endpoint, Image, Namespace, Network, Operation, Tag
from engine.services import addresses, builds, containers, images, namespaces, operations, uploads

pytestmark = pytest.mark.django_db(transaction=True)
T = TypeVar("T")
MANY = 6


@pytest.fixture
def namespace() -> Namespace:
    return namespaces.namespace_create("team")


@pytest.fixture
def image(namespace: Namespace) -> Image:
    made = Image.objects.create(
        namespace=namespace,
        digest="sha256:" + "1" * 64,
        manifest_digest="sha256:" + "2" * 64,
        size=1,
        architecture="amd64",
        config={"config": {"Cmd": ["sh"]}},
        layers=[],
        created_at=timezone.now(),
    )
    images.image_tag(made, "node", "user:1")
    return made


def at_once(work: Callable[[int], T], many: int = MANY) -> list[T | QuaysideError]:
    """What each of `many` threads got; an error that is not the engine's own fails."""
    ready = threading.Barrier(many)
    results: list[T | QuaysideError] = []
    broken: list[BaseException] = []

    def one(number: int) -> None:
        try:
            ready.wait(10)
            results.append(work(number))
        except QuaysideError as error:
            results.append(error)
        except BaseException as error:  # noqa: BLE001 - told by the test's own thread
            broken.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=one, args=(number,)) for number in range(many)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert broken == []
    assert len(results) == many
    return results


def test_an_operation_is_claimed_by_one(namespace: Namespace) -> None:
    operation = operations.submit(Operation.Kind.IMAGE_PULL, namespace, actor="user:1")
    won = at_once(lambda _: operations.claim(operation.pk))
    assert len([one for one in won if one is not None]) == 1
    operation.refresh_from_db()
    assert operation.attempt == 1


def test_a_lost_operation_is_queued_again_once(namespace: Namespace) -> None:
    operation = operations.submit(Operation.Kind.IMAGE_PULL, namespace, actor="user:1")
    operations.claim(operation.pk)
    Operation.objects.filter(pk=operation.pk).update(owner="local:1:1")
    found = at_once(lambda _: operations.requeue_lost())
    assert sum(len(one) for one in found if isinstance(one, list)) == 1


def test_a_name_is_given_once(namespace: Namespace, image: Image) -> None:
    request = containers.ContainerRequest(image="node", name="web")
    results = at_once(lambda _: containers.container_create(namespace, request, "user:1"))
    assert Counter(type(one) for one in results) == {tuple: 1, NameTaken: MANY - 1}
    assert Container.objects.count() == Endpoint.objects.count() == 1
    assert Operation.objects.count() == 1


def test_a_name_is_taken_by_one_rename(namespace: Namespace, image: Image) -> None:
    made = [
        containers.container_create(
            namespace, containers.ContainerRequest(image="node", name=f"c{n}"), "user:1"
        )[0]
        for n in range(MANY)
    ]
    results = at_once(lambda n: containers.container_rename(made[n], "web", "user:1"))
    assert Counter(type(one) for one in results) == {type(None): 1, NameTaken: MANY - 1}


def test_containers_without_a_name_get_names_and_addresses_of_their_own(
    namespace: Namespace, image: Image
) -> None:
    request = containers.ContainerRequest(image="node")
    at_once(lambda _: containers.container_create(namespace, request, "user:1"))
    assert Container.objects.values("name").distinct().count() == MANY
    places = list(Endpoint.objects.select_related("network"))
    assert len(places) == MANY
    at_once(lambda number: addresses.give(places[number]))
    assert Endpoint.objects.exclude(address=None).values("address").distinct().count() == MANY


def test_builds_get_numbers_one_after_another(namespace: Namespace) -> None:
    at_once(lambda _: builds.build_create(namespace, actor="user:1", dockerfile="FROM node\n"))
    assert sorted(Build.objects.values_list("number", flat=True)) == list(range(1, MANY + 1))


def test_pulls_of_one_image_are_one(namespace: Namespace) -> None:
    at_once(lambda _: images.image_pull(namespace, "node", "user:1"))
    assert Operation.objects.count() == 1


def test_namespaces_get_networks_of_their_own() -> None:
    at_once(lambda number: namespaces.namespace_create(f"team{number % 3}"))
    assert Network.objects.values("subnet").distinct().count() == 3


def test_a_tag_points_at_one_image(namespace: Namespace, image: Image) -> None:
    at_once(lambda _: images.image_tag(image, "web:1", "user:1"))
    assert Tag.objects.filter(repository="docker.io/library/web").count() == 1


def test_pieces_of_an_upload_sent_twice_count_once(namespace: Namespace) -> None:
    upload = uploads.upload_create(namespace, 1, "app.tar", 10)
    at_once(lambda _: uploads.upload_append(upload, 0, b"12345"))
    upload.refresh_from_db()
    assert upload.received == 5
