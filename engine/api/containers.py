"""What is done with one container: start, stop, restart, kill, pause, rename, update, remove; and
prune. Each is an operation that is waited for, as the pages make them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Concatenate, ParamSpec

from aiohttp import web

from engine.api.call import Call, Routes
from engine.api.errors import OperationFailed, kind_of
from engine.api.failures import in_runcs_words
from engine.api.operations import ended
from engine.errors import Conflict, InvalidInput, NameTaken, NotFound, WrongState
from engine.models import Container, Operation
from engine.runtime.signals import signal_number
from engine.services.containers import (
    container_kill,
    container_remove,
    container_rename,
    container_restart,
    container_start,
    container_stop,
    find_container,
)
from engine.services.orm import orm

logger = logging.getLogger(__name__)
routes = Routes()
P = ParamSpec("P")
State = Container.State

_DONE = 204
_ALREADY = 304


async def find(call: Call) -> Container:
    """The container the address names. Raises NotFound, InvalidInput."""
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
    container = await find(call)
    if container.state == State.PAUSED:
        raise Conflict("cannot start a paused container, try unpause instead")
    try:
        operation = await orm(container_start, container, call.actor, _first_size(container))
    except WrongState:
        return web.Response(status=_ALREADY)
    try:
        await ended(operation)
    except OperationFailed as error:
        if container.settings.get("auto_remove"):
            await asyncio.shield(_remove_after(container, call.actor))
        raise in_runcs_words(error) from error
    return web.Response(status=_DONE)


def _first_size(container: Container) -> tuple[int, int] | None:
    """(columns, rows), from the create: the terminal's size must reach it before the program."""
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
    except WrongState:
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
    return web.Response(status=_DONE)


def _signal(call: Call) -> str:
    """Raises InvalidInput in moby's words."""
    text = call.text("signal")
    if text:
        try:
            signal_number(text)
        except InvalidInput as error:
            raise InvalidInput(f"Invalid signal: {text}") from error
    return text


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


@routes.delete("/containers/{id}")
async def remove(call: Call) -> web.Response:
    container = await find(call)
    if call.flag("link"):
        raise Conflict("Conflict, cannot remove the default link name of the container")
    try:
        await operate(container_remove, call, container, call.flag("force"))
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
