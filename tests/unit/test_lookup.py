"""Containers by what people call them: the order of moby's (daemon/container.go, GetContainer)."""

from __future__ import annotations

import pytest

from engine.errors import InvalidInput, NotFound
from engine.models import Container, Namespace
from engine.services import namespaces
from engine.services.lookup import find_container

pytestmark = pytest.mark.django_db


def make(namespace: Namespace, digits: str, name: str) -> Container:
    return Container.objects.create(
        uid=digits.ljust(64, "0"),
        namespace=namespace,
        node=namespaces.node_local(),
        name=name,
        image_name="node",
        settings={},
    )


def test_an_id_a_name_and_the_beginning_of_an_id() -> None:
    namespace = namespaces.namespace_create("team")
    first, second = make(namespace, "ab", "web"), make(namespace, "ac", "db")
    named = make(namespace, "cc", "a")
    whole = make(namespace, "dd", first.uid)
    for text, found in (
        ("web", first), ("ab", first), ("ac", second), ("c", named), ("a", named),
        (first.uid, first), (whole.uid, whole),
    ):  # fmt: skip
        assert find_container(namespace, text) == found
    named.delete()
    with pytest.raises(InvalidInput, match="several containers begin with a"):
        find_container(namespace, "a")
    for text in ("", "b", "ab1"):
        with pytest.raises(NotFound):
            find_container(namespace, text)
