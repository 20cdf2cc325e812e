"""What is done with one container: start, stop, restart, kill, pause, rename, update, remove; and
prune. Each is an operation that is waited for, as the pages make them."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from signal import SIGKILL
from typing import Concatenate, ParamSpec

from aiohttp import web
from django.utils import timezone

from engine.api import sizes
from engine.api.binds import refuse_unread
from engine.api.call import Call, Routes, reply
from engine.api.changes import changes, topic
from engine.api.errors import OperationFailed, kind_of
from engine.api.failures import in_runcs_words
from engine.api.fields import Fields
from engine.api.happenings import settled, write_now
from engine.api.host_config import read_limits, read_restart
from engine.api.operations import ended, ended_or
from engine.api.words import point
from engine.containers.checks import check_restart
from engine.containers.options import Limits
from engine.containers.settings import ContainerSettings
from engine.errors import Conflict, InvalidInput, NameTaken, NotFound, WrongState
from engine.events import Kind
from engine.models import Container, Operation
from engine.runtime.resources import merged
from engine.runtime.signals import signal_number
from engine.services.containers import (
    container_kill,
    container_pause,
    container_remove,
    container_rename,
    container_restart,
    container_start,
    container_stop,
    container_unpause,
    container_update,
    containers_prune,
    find_container,
)
from engine.services.links import link_remove
from engine.services.orm import orm
from engine.services.work.changes import container_changes

logger = logging.getLogger(__name__)
routes = Routes()
P = ParamSpec("P")
State = Container.State

_DONE = 204
_KILL_SECONDS = 10
_ALREADY = 304


async def find(call: Call) -> Container:
    """The container the address names. Raises NotFound, InvalidInput."""
    await settled()
    return await orm(find_container, call.namespace, call.path("id").removeprefix("/"))


async def operate(
    submit: Callable[Concatenate[Container, str, P], Operation],
    call: Call,
    container: Container,
    *args: P.args,
    **more: P.kwargs,
) -> Operation:
    """Submit and wait. Raises what submitting raises, and OperationFailed."""
    return await ended(await orm(submit, container, call.actor, *args, **more))


@routes.post("/containers/{id}/start")
async def start(call: Call) -> web.Response:
    write_now()  # an attach's event; the start's comes long after it
    container = await orm(find_container, call.namespace, call.path("id").removeprefix("/"))
    if container.state == State.PAUSED:
        raise Conflict("cannot start a paused container, try unpause instead")
    try:
        operation = await orm(container_start, container, call.actor, _first_size(container))
    except WrongState:
        return web.Response(status=_ALREADY)
    # To its end also when the client leaves: what cannot start is not left behind.
    await asyncio.shield(_started(container, operation, call.actor))
    return web.Response(status=_DONE)


async def _started(container: Container, operation: Operation, actor: str) -> None:
    try:
        await runs(container, operation)
    except OperationFailed as error:
        if container.settings.get("auto_remove"):
            await _remove_after(container, actor)
        raise in_runcs_words(error) from error


async def runs(container: Container, start: Operation) -> None:
    """Until it runs, which is a moment before the operation has ended. Raises as `ended`."""
    before = container.started_at

    def begun() -> bool:
        return Container.objects.filter(pk=container.pk).exclude(started_at=before).exists()

    await ended_or(start, begun, topic(Kind.CONTAINER, container.pk))


def _first_size(container: Container) -> tuple[int, int] | None:
    """(columns, rows), of a resize before the start or from the create: the terminal's size must
    reach it before the program."""
    if before := sizes.take(container.uid):
        return before
    asked = container.settings.get("docker", {}).get("HostConfig", {}).get("ConsoleSize")
    if not container.tty or not isinstance(asked, list) or len(asked) != 2 or not all(asked):
        return None
    return int(asked[1]), int(asked[0])


async def _remove_after(container: Container, actor: str) -> None:
    """A `--rm` container that could not be started goes too: the CLI waits for that."""
    try:
        await ended(await orm(container_remove, container, actor, True))
    except (NotFound, OperationFailed):
        logger.info("%s went by itself", container.name)


@routes.post("/containers/{id}/stop")
async def stop(call: Call) -> web.Response:
    container = await find(call)
    signal = _signal(call)
    try:
        await operate(container_stop, call, container, call.number("t"), signal)
    except (WrongState, OperationFailed) as error:
        if not issubclass(kind_of(error), WrongState):
            raise
        return web.Response(status=_ALREADY)
    return web.Response(status=_DONE)


@routes.post("/containers/{id}/restart")
async def restart(call: Call) -> web.Response:
    container = await find(call)
    signal = _signal(call)
    try:
        await operate(
            container_restart,
            call,
            container,
            _first_size(container),
            call.number("t"),
            signal,
        )
    except OperationFailed as error:
        raise in_runcs_words(error) from error
    return web.Response(status=_DONE)


@routes.post("/containers/{id}/kill")
async def kill(call: Call) -> web.Response:
    name = call.path("id")
    signal = _signal(call) or "SIGKILL"
    try:
        container = await find(call)
    except NotFound as error:
        raise NotFound(f"Cannot kill container: {name}: No such container: {name}") from error
    try:
        await operate(container_kill, call, container, signal)
    except (WrongState, OperationFailed) as error:
        if not issubclass(kind_of(error), WrongState):
            raise
        raise Conflict(
            f"Cannot kill container: {name}: Container {container.uid} is not running"
        ) from error
    if signal_number(signal) == SIGKILL:
        await _until_ended(container)
    return web.Response(status=_DONE)


async def _until_ended(container: Container) -> None:
    """As moby after SIGKILL: who asks next finds it exited; after 10 s it is answered all the
    same."""

    def ended() -> bool | None:
        row = Container.objects.filter(pk=container.pk).only("state").first()
        return None if row is not None and row.is_running else True

    async def look() -> bool | None:
        return await orm(ended)

    with suppress(TimeoutError):
        async with asyncio.timeout(_KILL_SECONDS):
            await changes.until(look, topic(Kind.CONTAINER, container.pk))


def _signal(call: Call) -> str:
    """Raises InvalidInput in moby's words."""
    text = call.text("signal")
    if text:
        try:
            signal_number(text)
        except InvalidInput as error:
            raise InvalidInput(f"Invalid signal: {text}") from error
    return text


@routes.post("/containers/{id}/pause")
async def pause(call: Call) -> web.Response:
    container = await find(call)
    if container.state == State.PAUSED:
        raise Conflict(f"Container {container.uid} is already paused")
    await _while_running(container_pause, call, container)
    return web.Response(status=_DONE)


@routes.post("/containers/{id}/unpause")
async def unpause(call: Call) -> web.Response:
    container = await find(call)
    if container.state != State.PAUSED:
        raise Conflict(f"Container {container.uid} is not paused")
    await _while_running(container_unpause, call, container)
    return web.Response(status=_DONE)


async def _while_running(
    submit: Callable[[Container, str], Operation], call: Call, container: Container
) -> None:
    try:
        await operate(submit, call, container)
    except (WrongState, OperationFailed) as error:
        if not issubclass(kind_of(error), WrongState):
            raise
        raise Conflict(f"Container {container.uid} is not running") from error


@routes.post("/containers/{id}/update")
async def update(call: Call) -> web.Response:
    """Limits and the restart policy: what is given takes the place of what was."""
    container = await find(call)
    asked = Fields(await call.json(), "UpdateConfig")
    limits = read_limits(asked)
    policy = read_restart(asked.object("RestartPolicy")) if asked.raw("RestartPolicy") else None
    if policy is not None and not asked.object("RestartPolicy").text("Name"):
        policy = None
    refuse_unread(asked, "UpdateConfig")
    settings = ContainerSettings.from_json(container.settings)
    before = settings.host.limits
    swap = before.memory_swap or 0
    if limits.memory and not limits.memory_swap and 0 < swap < limits.memory:
        raise InvalidInput(
            f"Cannot update container {container.uid}: Memory limit should be smaller than already "
            "set memoryswap limit, update the memoryswap at the same time"
        )
    if policy is not None:
        check_restart(replace(settings.host, restart=policy), settings.auto_remove)
    await operate(
        container_update,
        call,
        container,
        limits=merged(before, limits) if limits != Limits() else None,
        restart=policy,
    )
    return reply({"Warnings": []})


@routes.post("/containers/prune")
async def prune(call: Call) -> web.Response:
    filters = call.filters()
    for name in filters:
        if name not in ("until", "label", "label!"):
            raise InvalidInput(f"Invalid filter '{name}'")
    operation = await orm(
        containers_prune,
        call.namespace,
        call.actor,
        until=_until(filters.get("until", [])),
        label=filters.get("label", []),
        label_not=filters.get("label!", []),
    )
    result = (await ended(operation)).result
    return reply({"ContainersDeleted": result["containers"], "SpaceReclaimed": result["bytes"]})


def _until(texts: list[str]) -> datetime | None:
    if len(texts) > 1:
        raise InvalidInput("more than one until filter specified")
    if not texts:
        return None
    found = point(texts[0], timezone.now())
    if found is None:
        raise InvalidInput(f"invalid until filter: {texts[0]}")
    return found


@routes.get("/containers/{id}/changes")
async def changed(call: Call) -> web.Response:
    """`docker diff`; null where nothing has changed, as dockerd says it."""
    container = await find(call)
    found = await orm(container_changes, container)
    return reply([{"Path": os.fsdecode(one.path), "Kind": int(one.kind)} for one in found] or None)


@routes.post("/containers/{id}/rename")
async def rename(call: Call) -> web.Response:
    container = await find(call)
    name = call.text("name").removeprefix("/")
    if not name:
        raise InvalidInput("Neither old nor new names may be empty")
    if name == container.name:
        raise InvalidInput("Renaming a container with the same name as its current name")
    try:
        await orm(container_rename, container, name, call.actor)
    except NameTaken as error:
        holder = await orm(find_container, call.namespace, name)
        raise NameTaken(
            f'Error when allocating new name: Conflict. The container name "/{name}" is already '
            f'in use by container "{holder.uid}". You have to remove (or rename) that container '
            "to be able to reuse that name."
        ) from error
    except InvalidInput as error:
        raise InvalidInput(
            f"Error when allocating new name: Invalid container name ({name}), only "
            "[a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        ) from error
    return web.Response(status=_DONE)


@routes.delete("/containers/{id:.+}")
async def remove(call: Call) -> web.Response:
    if call.flag("link"):
        await ended(await orm(link_remove, call.namespace, call.path("id"), call.actor))
        return web.Response(status=_DONE)
    container = await find(call)
    try:
        await operate(container_remove, call, container, call.flag("force"), volumes=call.flag("v"))
    except OperationFailed as error:
        if issubclass(kind_of(error), NotFound):
            return web.Response(status=_DONE)  # somebody was faster
        raise _running(container, error) from error
    except WrongState as error:
        raise _running(container, error) from error
    return web.Response(status=_DONE)


def _running(container: Container, error: OperationFailed | WrongState) -> Exception:
    if not issubclass(kind_of(error), WrongState):
        return error
    state = "paused" if container.state == State.PAUSED else "running"
    advice = "Unpause and then stop" if state == "paused" else "Stop"
    return Conflict(
        f"You cannot remove a {state} container {container.uid}. {advice} the container before "
        "attempting removal or force remove"
    )
