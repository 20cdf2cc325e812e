"""What a `POST /build` asks for: its query, read and checked. Pure but for credentials.

What the classic builder of dockerd has and this one has not is refused by name, never left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.api.call import Call
from engine.api.registry_words import credentials_of
from engine.errors import InvalidInput, PolicyDenied, Unsupported
from engine.oci import platform
from engine.oci.platform import Platform
from engine.oci.reference import Reference
from engine.registry.auth import Credentials
from engine.runtime.resources import Limits
from engine.runtime.rlimits import Ulimit
from engine.services.build_options import BuildOptions

BUILDKIT_HINT = "set DOCKER_BUILDKIT=0: this builder speaks the classic protocol"


@dataclass(frozen=True, slots=True)
class BuildWish:
    """`tags` as typed, `args` without those that have no value."""

    tags: tuple[str, ...]
    dockerfile: str
    args: Mapping[str, str]
    target: str
    no_cache: bool
    pull: bool
    quiet: bool
    remove: bool
    force_remove: bool
    options: BuildOptions


def buildkit() -> Unsupported:
    return Unsupported("BuildKit is not supported", hint=BUILDKIT_HINT)


def read(call: Call) -> BuildWish:
    """Raises InvalidInput, InvalidReference, PolicyDenied, Unsupported."""
    if call.text("version") == "2":
        raise buildkit()
    _refuse(call)
    tags = tuple(tag for tag in call.texts("t") if tag)
    for tag in tags:
        Reference.parse(tag)
    labels = _object(call, "labels", "labels")
    return BuildWish(
        tags=tags,
        dockerfile=_dockerfile(call.text("dockerfile")),
        args={
            name: str(value)
            for name, value in _object(call, "buildargs", "build args").items()
            if value is not None
        },
        target=call.text("target"),
        no_cache=call.flag("nocache"),
        pull=call.flag("pull"),
        quiet=call.flag("q"),
        remove=call.flag("rm", default=True),
        force_remove=call.flag("forcerm"),
        options=BuildOptions(
            labels={name: str(value) for name, value in labels.items()},
            limits=_limits(call),
            ulimits=_ulimits(call),
            shm_bytes=_positive(call, "shmsize"),
            hosts=tuple(_host(text) for text in call.texts("extrahosts") if text),
            network=_network(call.text("networkmode")),
            cache_from=tuple(str(name) for name in _list(call, "cachefrom")),
        ),
    )


def sign_ins(header: object) -> dict[str, Credentials]:
    """X-Registry-Config's, decoded: by the registry's domain as references have it."""
    found: dict[str, Credentials] = {}
    for name, value in header.items() if isinstance(header, Mapping) else ():
        credentials = credentials_of(value) if isinstance(value, Mapping) else None
        if credentials is not None:
            domain = str(name).removeprefix("https://").partition("/")[0]
            found["docker.io" if domain == "index.docker.io" else domain] = credentials
    return found


def _refuse(call: Call) -> None:
    if call.flag("squash"):
        # dockerd's own words, without --experimental.
        raise InvalidInput("squash is only supported with experimental mode")
    if call.text("remote"):
        raise Unsupported(
            f"building from an address ({call.text('remote')}) is not supported",
            hint="fetch it first, and build the folder",
        )
    if call.text("outputs") not in ("", "[]", "null"):
        raise Unsupported("--output is BuildKit's and not supported", hint="leave it away")
    if call.text("isolation") not in ("", "default"):
        raise InvalidInput(f"Unsupported isolation: {call.text('isolation')!r}")
    if call.text("securityopt") not in ("", "[]", "null"):
        # dockerd's own words for Linux.
        raise InvalidInput(
            "The daemon on this platform does not support setting security options on build"
        )
    if call.text("cgroupparent"):
        raise PolicyDenied(
            "--cgroup-parent is not allowed", hint="steps run in a group of this home's own"
        )
    wanted = call.text("platform")
    if wanted and not platform.matches(Platform.parse(wanted), platform.host()):
        raise Unsupported(
            f"building for {wanted} on {platform.host()} is not supported",
            hint="leave --platform away",
        )


def _dockerfile(text: str) -> str:
    parts = [part for part in (text or "Dockerfile").split("/") if part not in ("", ".")]
    if not parts or ".." in parts or "\0" in text:
        raise InvalidInput(f"forbidden path outside the build context: {text}")
    return "/".join(parts)


def _object(call: Call, name: str, what: str) -> Mapping[str, Any]:
    value = _json(call, name, what)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidInput(f"error reading {what}: an object is expected")
    return value


def _list(call: Call, name: str) -> list[Any]:
    value = _json(call, name, name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidInput(f"error reading {name}: a list is expected")
    return value


def _json(call: Call, name: str, what: str) -> Any:
    text = call.text(name)
    if not text:
        return None
    try:
        return json.loads(text)
    except ValueError as error:
        raise InvalidInput(f"error reading {what}: {error}") from error


def _positive(call: Call, name: str) -> int | None:
    """None for 0: what the CLI sends where nothing was asked for. Raises InvalidInput."""
    value = call.number(name) or None
    if value is not None and value < -1:
        raise InvalidInput(f"{name} cannot be negative: {value}")
    return value


def _limits(call: Call) -> Limits:
    return Limits(
        memory=_positive(call, "memory"),
        memory_swap=_positive(call, "memswap"),
        cpu_shares=_positive(call, "cpushares"),
        cpu_quota=_positive(call, "cpuquota"),
        cpu_period=_positive(call, "cpuperiod"),
        cpuset_cpus=call.text("cpusetcpus"),
        cpuset_mems=call.text("cpusetmems"),
    )


def _ulimits(call: Call) -> tuple[Ulimit, ...]:
    try:
        return tuple(
            Ulimit(str(one["Name"]), int(one["Soft"]), int(one["Hard"]))
            for one in _list(call, "ulimits")
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInput(f"error reading ulimits: {error!r}") from error


def _host(text: str) -> tuple[str, str]:
    name, colon, address = text.partition(":")
    if not (name and colon and address) or any(c.isspace() for c in text):
        raise InvalidInput(f'bad format for add-host: "{text}"')
    return name, address.strip("[]")


def _network(mode: str) -> str:
    """ "" for the namespace's own, "none", or a network's name or id."""
    if mode in ("", "default", "bridge"):
        return ""
    if mode == "host":
        raise PolicyDenied("RUN steps never get the host's network", hint="leave --network away")
    if mode.startswith("container:"):
        raise Unsupported(
            "RUN steps in a container's network are not supported",
            hint="name a network that both are on",
        )
    return mode
