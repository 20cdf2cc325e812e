"""POST /containers/create: Docker's Config, HostConfig and NetworkingConfig become a request to the
services, and what the services refuse is said in moby's words.

The answer comes after the rows' transaction. The folder and the writable layer are laid out by the
container's first start, or by whoever needs its files before that (archive, export, commit).
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from aiohttp import web

from engine.api.binds import refuse_unread
from engine.api.call import Call, Routes, reply
from engine.api.errors import message_of
from engine.api.fields import Fields
from engine.api.host_config import read_host, read_ports
from engine.api.networks import read_endpoint
from engine.ceiling import Ceiling
from engine.containers import mounts
from engine.containers.options import EndpointSettings, HostOptions
from engine.errors import ContentCorrupt, InvalidInput, NameTaken, NotFound, Unsupported
from engine.models import Container, Namespace
from engine.oci import Healthcheck
from engine.oci.reference import Reference
from engine.services.containers import ContainerRequest, container_new
from engine.services.images import find_image
from engine.services.orm import orm

routes = Routes()

# Of our services' errors, by their field, those whose words Docker's users know otherwise.
_WORDS = {
    "command": ("no command", "No command specified"),
    "name": (
        "not a container name",
        "Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed",
    ),
    "env": ("not an environment entry: ", "invalid environment variable: {rest}"),
    "working_dir": (
        "the working directory is not absolute: ",
        "the working directory '{rest}' is invalid, it needs to be an absolute path",
    ),
    "stop_signal": ("no such signal: ", "Invalid signal: {rest}"),
}


@routes.post("/containers/create")
async def create(call: Call) -> web.Response:
    body = await call.json()
    if not body:
        raise InvalidInput("Config cannot be empty in order to create a container")
    name = call.text("name").removeprefix("/")
    request = read_request(body, name)
    try:
        await asyncio.to_thread(_check_sources, call, request)
        container = await orm(_create, call.namespace, request, call.text("platform"), call.actor)
    except InvalidInput as error:
        raise _in_dockers_words(error, name) from error
    return reply({"Id": container.uid, "Warnings": []}, 201)


def _check_sources(call: Call, request: ContainerRequest) -> None:
    """As moby: what is missing on the host is said before there is a container."""
    mounts.check_sources(request.host.mounts, Ceiling.load(call.config.home / "ceiling.json"))


def _create(
    namespace: Namespace, request: ContainerRequest, platform: str, actor: str
) -> Container:
    if platform:
        _check_platform(namespace, request.image, platform)
    try:
        return container_new(namespace, request, actor)
    except NameTaken as error:
        holder = Container.objects.for_namespace(namespace).filter(name=request.name).first()
        raise NameTaken(
            f'Conflict. The container name "/{request.name}" is already in use by container '
            f'"{holder.uid if holder else ""}". You have to remove (or rename) that container to '
            "be able to reuse that name."
        ) from error
    except NotFound as error:
        if error.context.get("kind") == "image":
            raise _no_image(error, request.image) from error
        # A 404 tells the CLI that the image is missing: it would pull it and ask again.
        raise InvalidInput(message_of(error)) from error


def _no_image(error: NotFound, name: str) -> NotFound:
    return NotFound(error.message, kind="image", name=_tagged(name))


def _check_platform(namespace: Namespace, name: str, platform: str) -> None:
    try:
        image = find_image(namespace, name)
    except NotFound as error:
        raise _no_image(error, name) from error
    wanted = platform.split("/")
    os, architecture = wanted[0], wanted[1] if len(wanted) > 1 else ""
    if len(wanted) == 1 and os not in ("linux", "windows"):
        os, architecture = "linux", os
    if os != image.os or architecture not in ("", image.architecture):
        raise NotFound(
            f"image with reference {name} was found but does not match the specified platform: "
            f"wanted {platform}, actual: {image.os}/{image.architecture}"
        )


def _tagged(text: str) -> str:
    return Reference.parse(text).familiar() if text else text


def read_request(body: Any, name: str) -> ContainerRequest:
    """Raises InvalidInput, InvalidReference, Unsupported."""
    config = Fields(body, "ContainerConfigWrapper")
    host = config.object("HostConfig")
    networking = config.object("NetworkingConfig")
    endpoints = _read_endpoints(networking.object("EndpointsConfig"))
    mode = host.text("NetworkMode") or "default"
    if mac := config.text("MacAddress"):
        endpoints = _with_mac(endpoints, mode, mac)
    entrypoint = config.words("Entrypoint")
    request = ContainerRequest(
        image=config.text("Image"),
        name=name,
        command=config.words("Cmd") or (),
        # [""] clears the image's, as `--entrypoint ""` sends it.
        entrypoint=() if entrypoint == ("",) else entrypoint,
        env=config.texts("Env"),
        working_dir=config.text("WorkingDir"),
        user=config.text("User"),
        hostname=config.text("Hostname"),
        domainname=config.text("Domainname"),
        tty=config.flag("Tty"),
        open_stdin=config.flag("OpenStdin"),
        stdin_once=config.flag("StdinOnce"),
        attach_stdin=config.flag("AttachStdin"),
        attach_stdout=config.flag("AttachStdout"),
        attach_stderr=config.flag("AttachStderr"),
        # moby lets them pass where there is nothing to publish from, and publishes nothing.
        ports=() if mode in ("none", "host") else read_ports(host),
        exposed_ports=config.names("ExposedPorts"),
        volumes=config.names("Volumes"),
        auto_remove=host.flag("AutoRemove"),
        labels=config.mapping("Labels"),
        network="none" if config.flag("NetworkDisabled") else mode,
        endpoints=endpoints,
        stop_signal=config.text("StopSignal"),
        stop_timeout=config.number("StopTimeout"),
        healthcheck=_read_healthcheck(config.raw("Healthcheck")),
        host=_read_host(config, host),
        docker={
            "Config": _kept(config),
            "HostConfig": config.raw("HostConfig") or {},
            "NetworkingConfig": config.raw("NetworkingConfig") or {},
        },
    )
    config.raw("ArgsEscaped")  # Windows' own; images of old Dockers bring it along
    refuse_unread(networking, "NetworkingConfig")
    refuse_unread(config, "Config")
    return request


def _kept(config: Fields) -> dict[str, Any]:
    """What a container of Docker's only keeps: a commit's image and inspect have it."""
    found = {
        "OnBuild": list(config.texts("OnBuild")),
        "Shell": list(config.texts("Shell")),
        "MacAddress": config.text("MacAddress"),
        "NetworkDisabled": config.flag("NetworkDisabled"),
    }
    return {key: value for key, value in found.items() if value}


def _read_host(config: Fields, host: Fields) -> HostOptions:
    """docker-py says the runtime in the Config, which dockerd passes over: here it is heeded."""
    runtime, found = config.text("Runtime"), read_host(host)
    return replace(found, runtime=runtime) if runtime and not found.runtime else found


def _read_healthcheck(raw: object) -> Healthcheck | None:
    if not raw:
        return None
    try:
        # null is the zero value to Go.
        given = Fields(raw, "Healthcheck").given()
        found = Healthcheck.from_json(given)
    except ContentCorrupt as error:
        raise InvalidInput(f"invalid Healthcheck: {error.message}") from error
    for key in found.extra:
        raise Unsupported(f"Healthcheck.{key} is not supported")
    return found


def _read_endpoints(given: Fields) -> dict[str, EndpointSettings]:
    found = {}
    for name in given.all_names():
        found[name] = read_endpoint(given.object(name))
    return found


def _with_mac(
    endpoints: dict[str, EndpointSettings], mode: str, mac: str
) -> dict[str, EndpointSettings]:
    """The container-wide address of clients before 1.44 is its first network's."""
    before = endpoints.get(mode, EndpointSettings())
    return {**endpoints, mode: replace(before, mac=before.mac or mac)}


def _in_dockers_words(error: InvalidInput, name: str) -> InvalidInput:
    begins, words = _WORDS.get(str(error.context.get("field", "")), ("\0", ""))
    if not error.message.startswith(begins):
        return error
    return InvalidInput(words.format(name=name, rest=error.message[len(begins) :]))
