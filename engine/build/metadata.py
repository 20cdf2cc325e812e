"""Instructions that change the image's config only: ENV, LABEL, USER, CMD …: pure.

Takes an instruction with its variables put in and the config before it, and gives the config
after it with what history says. Leaves ARG to engine.build.scope and the folder of WORKDIR to
engine.build.steps.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from engine.dockerfile.instructions import (
    Cmd,
    Entrypoint,
    Env,
    Expose,
    HealthCheck,
    Instruction,
    Label,
    OnBuild,
    Run,
    Shell,
    StopSignal,
    User,
    Volume,
)
from engine.errors import DockerfileError
from engine.oci.image import ContainerConfig

DEFAULT_SHELL = ("/bin/sh", "-c")
_SIGNAL = re.compile(r"(?:SIG)?[A-Z][A-Z0-9]*(?:[+-]\d+)?|[1-9]\d?", re.IGNORECASE)

Metadata = (
    Env
    | Label
    | User
    | Expose
    | Volume
    | Cmd
    | Entrypoint
    | Shell
    | StopSignal
    | HealthCheck
    | OnBuild
)


@dataclass(frozen=True, slots=True)
class Change:
    """`text` is history's created_by."""

    config: ContainerConfig
    text: str


def apply(instruction: Metadata, config: ContainerConfig, *, cmd_is_ours: bool) -> Change:
    """The config after the instruction; `cmd_is_ours` says whether this stage has set CMD, which
    ENTRYPOINT then leaves alone. Raises DockerfileError."""
    match instruction:
        case Env():
            _named(instruction, instruction.pairs)
            env = with_env(config.env, instruction.pairs)
            return Change(replace(config, env=env), f"ENV {_pairs(instruction.pairs)}")
        case Label():
            _named(instruction, instruction.pairs)
            labels = {**config.labels, **dict(instruction.pairs)}
            return Change(replace(config, labels=labels), f"LABEL {_pairs(instruction.pairs)}")
        case User():
            if not instruction.user:
                raise error_at(instruction, "USER is empty", hint="name a user, or 0 for root")
            return Change(replace(config, user=instruction.user), f"USER {instruction.user}")
        case Expose():
            ports = tuple(sorted({*config.exposed_ports, *instruction.ports}, key=_port_order))
            return Change(
                replace(config, exposed_ports=ports), f"EXPOSE {' '.join(instruction.ports)}"
            )
        case Volume():
            paths = [working_dir("/", path) for path in instruction.paths if path.strip()]
            if len(paths) != len(instruction.paths) or not paths:
                raise error_at(instruction, "VOLUME has an empty path", hint="name a folder")
            volumes = tuple(sorted({*config.volumes, *paths}))
            return Change(replace(config, volumes=volumes), f"VOLUME {_list(paths)}")
        case Cmd():
            cmd = command(instruction, config)
            return Change(replace(config, cmd=cmd), f"CMD {_list(cmd)}")
        case Entrypoint():
            entrypoint = command(instruction, config)
            cmd_after = config.cmd if cmd_is_ours else None
            return Change(
                replace(config, entrypoint=entrypoint, cmd=cmd_after),
                f"ENTRYPOINT {_list(entrypoint)}",
            )
        case Shell():
            return Change(
                replace(config, shell=instruction.args), f"SHELL {_list(instruction.args)}"
            )
        case StopSignal():
            if not _SIGNAL.fullmatch(instruction.signal):
                raise error_at(
                    instruction,
                    f"not a signal: {instruction.signal}",
                    hint="write a name like SIGTERM, or a number",
                )
            return Change(
                replace(config, stop_signal=instruction.signal), f"STOPSIGNAL {instruction.signal}"
            )
        case HealthCheck():
            return Change(replace(config, healthcheck=instruction.check), instruction.text)
        case OnBuild():
            triggers = (*config.on_build, instruction.expression)
            return Change(replace(config, on_build=triggers), f"ONBUILD {instruction.expression}")


def command(instruction: Cmd | Entrypoint | Run, config: ContainerConfig) -> tuple[str, ...]:
    """The argument list: an exec form's own, or the shell's with the text."""
    if instruction.shell is None:
        return instruction.args or ()
    text = instruction.command if isinstance(instruction, Run) else instruction.shell
    return (*(config.shell or DEFAULT_SHELL), text)


def with_env(env: Sequence[str], pairs: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """`env` with the pairs set; a name that is there keeps its place."""
    return tuple(f"{name}={value}" for name, value in {**env_values(env), **dict(pairs)}.items())


def env_values(env: Sequence[str]) -> dict[str, str]:
    """NAME=value entries as a mapping; a bare NAME is none."""
    return {name: value for name, given, value in (e.partition("=") for e in env) if given}


def working_dir(current: str, path: str) -> str:
    """WORKDIR's new value: relative to the one before, cleaned, `..` never above the root."""
    return "/" + posixpath.normpath(posixpath.join("/", current, path)).lstrip("/")


def error_at(
    instruction: Instruction, message: str, *, hint: str = "", file: str = "Dockerfile"
) -> DockerfileError:
    """The error with the instruction's lines and text."""
    return DockerfileError(
        message,
        line=instruction.line,
        end_line=instruction.end_line,
        source=instruction.source,
        hint=hint,
        file=file,
    )


def arguments_text(args: Mapping[str, str]) -> str:
    """`|2 A=1 B=2 ` before RUN's command in history, as Docker writes it; "" without any."""
    if not args:
        return ""
    return f"|{len(args)} {' '.join(f'{name}={args[name]}' for name in sorted(args))} "


def _named(instruction: Env | Label, pairs: Sequence[tuple[str, str]]) -> None:
    for name, _ in pairs:
        if not name or "\0" in name or (isinstance(instruction, Env) and "=" in name):
            raise error_at(
                instruction,
                f"{instruction.keyword} has a name that cannot be: {name!r}",
                hint="look at what its variables stand for",
            )


def _pairs(pairs: Sequence[tuple[str, str]]) -> str:
    return " ".join(f"{name}={_quoted(value)}" for name, value in pairs)


def _quoted(value: str) -> str:
    plain = value and not re.search(r"[\s\"'\\]", value)
    return value if plain else json.dumps(value, ensure_ascii=False)


def _list(words: Sequence[str]) -> str:
    return json.dumps(list(words), ensure_ascii=False)


def _port_order(port: str) -> tuple[int, str]:
    number, _, protocol = port.partition("/")
    return int(number) if number.isdigit() else 0, protocol
