"""Writes down what happened, in Docker's words (moby daemon/events). Call it inside the transaction
of the change it tells of, together with publish.changed."""

from __future__ import annotations

from collections.abc import Mapping

from engine import publish
from engine.models import Container, Event, Namespace


def record(
    namespace: Namespace | int,
    type: str,
    action: str,
    actor_id: str,
    attributes: Mapping[str, str] | None = None,
) -> Event:
    """`type` container, image, volume, network, builder, daemon."""
    key = namespace if isinstance(namespace, int) else namespace.pk
    event = Event.objects.create(
        namespace_id=key,
        type=type,
        action=action,
        actor_id=actor_id,
        attributes=dict(attributes or {}),
    )
    publish.happened(key, event.pk)
    return event


def container_event(container: Container, action: str, **more: str) -> Event:
    """Its labels, image and name go with it; `more` is exitCode, signal, execID …"""
    attributes = {
        **{str(key): str(value) for key, value in container.settings.get("labels", {}).items()},
        "image": container.image_name,
        "name": container.name,
        **more,
    }
    return record(container.namespace_id, "container", action, container.uid, attributes)
