"""`--change` of commit and import: lines of a Dockerfile over a container's config, as moby does it
(builder/dockerfile BuildFromConfig, runconfig.Merge). Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from engine.build import metadata
from engine.dockerfile.instructions import (
    Cmd,
    Entrypoint,
    Env,
    Expose,
    HealthCheck,
    Instruction,
    Label,
    OnBuild,
    StopSignal,
    User,
    Volume,
    Workdir,
)
from engine.dockerfile.parser import parse
from engine.dockerfile.substitution import substitute
from engine.errors import InvalidInput
from engine.oci.image import ContainerConfig

_ALLOWED = (
    Cmd | Entrypoint | Env | Expose | HealthCheck | Label | OnBuild | StopSignal | User | Volume
)
_KEYWORDS = frozenset(
    "cmd entrypoint env expose healthcheck label onbuild stopsignal user volume workdir".split()
)


def changed(config: ContainerConfig, changes: Sequence[str]) -> ContainerConfig:
    """The config after the lines. Raises DockerfileError, InvalidInput for another instruction."""
    if not any(line.strip() for line in changes):
        return config
    for line in changes:
        keyword = line.split(maxsplit=1)[0].lower() if line.strip() else ""
        if keyword and keyword not in _KEYWORDS:
            raise InvalidInput(f"{keyword} is not a valid change command", field="changes")
    cmd_is_ours = False
    for instruction in parse("FROM scratch\n" + "\n".join(changes)).instructions[1:]:
        config = _after(instruction, config, cmd_is_ours)
        cmd_is_ours = cmd_is_ours or isinstance(instruction, Cmd)
    return config


def _after(instruction: Instruction, config: ContainerConfig, cmd_is_ours: bool) -> ContainerConfig:
    expanded = substitute(instruction, metadata.env_values(config.env))
    if isinstance(expanded, Workdir):
        return replace(config, working_dir=metadata.working_dir(config.working_dir, expanded.path))
    if isinstance(expanded, _ALLOWED):
        return metadata.apply(expanded, config, cmd_is_ours=cmd_is_ours).config
    keyword = instruction.keyword.lower()
    raise InvalidInput(f"{keyword} is not a valid change command", field="changes")


def merged(asked: ContainerConfig, below: ContainerConfig) -> ContainerConfig:
    """What was asked for, filled up with the container's own."""
    cmd, entrypoint = asked.cmd, asked.entrypoint
    if not entrypoint:
        cmd = cmd or below.cmd
        entrypoint = below.entrypoint if entrypoint is None else entrypoint
    names = set(metadata.env_values(asked.env))
    inherited = [entry for entry in below.env if entry.partition("=")[0] not in names]
    return replace(
        asked,
        user=asked.user or below.user,
        exposed_ports=tuple(sorted({*asked.exposed_ports, *below.exposed_ports})),
        env=(*asked.env, *inherited),
        labels={**below.labels, **asked.labels},
        cmd=cmd,
        entrypoint=entrypoint,
        healthcheck=asked.healthcheck or below.healthcheck,
        working_dir=asked.working_dir or below.working_dir,
        volumes=tuple(sorted({*asked.volumes, *below.volumes})),
        stop_signal=asked.stop_signal or below.stop_signal,
    )
