"""A container by what people call it, and as it is now."""

from __future__ import annotations

from typing import Any

from engine.errors import InvalidInput, NotFound
from engine.models import Container, Namespace


def find_container(namespace: Namespace, name_or_id: str) -> Container:
    """Raises NotFound; a beginning of an id that fits several containers is InvalidInput."""
    found = Container.objects.for_namespace(namespace).lookup(name_or_id)
    if not found:
        raise NotFound(f"no such container: {name_or_id}", kind="container", name=name_or_id)
    if len(found) > 1:
        raise InvalidInput(
            f"several containers begin with {name_or_id}", hint="give more of the id", field="id"
        )
    return found[0]


def load(**lookup: Any) -> Container:
    """The row as it is now. Raises NotFound when it went meanwhile."""
    container = Container.objects.select_related("namespace", "image").filter(**lookup).first()
    if container is None:
        raise NotFound("the container has been removed meanwhile", kind="container")
    return container
