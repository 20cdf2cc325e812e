"""An instruction with its variables put in: which parts of which instruction expand.

RUN, CMD and ENTRYPOINT keep theirs (a shell reads them), except RUN's mounts; ONBUILD expands when
it is triggered. All of one instruction sees the values as they were before it. Scopes are left to
engine.build.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

from engine.dockerfile.directives import DEFAULT_ESCAPE
from engine.dockerfile.expansion import expand, expand_heredoc, expand_words
from engine.dockerfile.heredoc import Heredoc
from engine.dockerfile.instructions import (
    Add,
    Arg,
    Env,
    Expose,
    From,
    Instruction,
    Label,
    Run,
    StopSignal,
    Transfer,
    User,
    Volume,
    Workdir,
)
from engine.dockerfile.mounts import parse_mount
from engine.dockerfile.ports import exposed_ports
from engine.errors import DockerfileError, InvalidInput

T = TypeVar("T", bound=Instruction)
C = TypeVar("C", bound=Transfer)


def substitute(
    instruction: T,
    values: Mapping[str, str],
    escape: str = DEFAULT_ESCAPE,
    file: str = "Dockerfile",
) -> T:
    """The same instruction, quotes taken away and variables put in.

    EXPOSE comes back with single ports, `80/tcp` each. Raises DockerfileError with its lines.
    """
    try:
        return _substitute(instruction, values, escape)
    except InvalidInput as error:
        raise DockerfileError(
            error.message,
            line=instruction.line,
            end_line=instruction.end_line,
            source=instruction.source,
            file=file,
            hint=error.hint,
        ) from error


def _substitute(instruction: T, values: Mapping[str, str], escape: str) -> T:
    def put(text: str) -> str:
        return expand(text, values, escape)

    if isinstance(instruction, Env | Label):
        pairs = tuple((put(name), put(value)) for name, value in instruction.pairs)
        return replace(instruction, pairs=pairs)
    if isinstance(instruction, Arg):
        defaults = tuple(
            (put(name), None if value is None else put(value)) for name, value in instruction.pairs
        )
        return replace(instruction, pairs=defaults)
    if isinstance(instruction, Transfer):
        return _transfer(instruction, values, put)
    if isinstance(instruction, Run):
        mounts = tuple(parse_mount(text, put) for text in instruction.mount_texts)
        return replace(instruction, mounts=mounts)
    if isinstance(instruction, From):
        platform = put(instruction.platform) if instruction.platform else None
        return replace(instruction, image=put(instruction.image), platform=platform or None)
    if isinstance(instruction, Expose):
        words = (word for text in instruction.ports for word in expand_words(text, values, escape))
        ports = tuple(port for word in words for port in exposed_ports(word))
        return replace(instruction, ports=ports)
    if isinstance(instruction, Volume):
        return replace(instruction, paths=tuple(map(put, instruction.paths)))
    if isinstance(instruction, Workdir):
        return replace(instruction, path=put(instruction.path))
    if isinstance(instruction, User):
        return replace(instruction, user=put(instruction.user))
    if isinstance(instruction, StopSignal):
        return replace(instruction, signal=put(instruction.signal))
    return instruction


def _transfer(instruction: C, values: Mapping[str, str], put: Callable[[str], str]) -> C:
    def body(heredoc: Heredoc) -> Heredoc:
        content = expand_heredoc(heredoc.text, values) if heredoc.expand else heredoc.text
        return replace(heredoc, content=content, strip_tabs=False, expand=False)

    if isinstance(instruction, Add):
        instruction = replace(instruction, checksum=put(instruction.checksum))
    return replace(
        instruction,
        sources=tuple(map(put, instruction.sources)),
        destination=put(instruction.destination),
        heredocs=tuple(map(body, instruction.heredocs)),
        chown=put(instruction.chown),
        chmod=put(instruction.chmod),
        exclude=tuple(map(put, instruction.exclude)),
    )
