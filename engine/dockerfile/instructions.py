"""The instructions of a Dockerfile as frozen values: the parser makes them, the plan reads them.

Every text is as written: variables and quotes are still in it. engine.dockerfile.substitution
gives the same instruction with its variables put in; what each one does is engine.build's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from engine.dockerfile.heredoc import Heredoc
from engine.dockerfile.mounts import Mount
from engine.oci import Healthcheck


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """`line` to `end_line` (1-based, inclusive, heredocs included) are `source`, as written.

    `text` is the statement in one line, continuations joined, heredoc bodies left out; `flags`
    are its `--name=value` words without quotes.
    """

    keyword: ClassVar[str]

    line: int
    end_line: int
    source: str
    text: str
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class From(Instruction):
    """`FROM [--platform=P] image [AS name]`; the name is in lower case."""

    keyword = "FROM"

    image: str
    name: str | None = None
    platform: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandLine(Instruction):
    """RUN, CMD, ENTRYPOINT: either `shell`, a text for the shell, or `args`, the exec form."""

    shell: str | None = None
    args: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Run(CommandLine):
    """`mounts` is empty as long as one of `mount_texts` still has a variable in it."""

    keyword = "RUN"

    mount_texts: tuple[str, ...] = ()
    mounts: tuple[Mount, ...] = ()
    network: str = "default"
    security: str = "sandbox"
    devices: tuple[str, ...] = ()
    heredocs: tuple[Heredoc, ...] = ()

    @property
    def script(self) -> Heredoc | None:
        """The one heredoc that is the whole command, which a `#!` makes a program of its own."""
        only = self.heredocs[0] if len(self.heredocs) == 1 and self.shell is not None else None
        if only is None or not only.text.startswith("#!") or not self._is_heredoc:
            return None
        return only

    @property
    def command(self) -> str:
        """What the shell is given, heredocs included; "" in exec form.

        A heredoc alone is the command itself, so that shells without heredocs can run it.
        """
        if self.shell is None:
            return ""
        if self.heredocs and self._is_heredoc:
            return self.heredocs[0].text
        return "\n".join([self.shell, *(f"{doc.content}{doc.name}" for doc in self.heredocs)])

    @property
    def _is_heredoc(self) -> bool:
        return self.shell is not None and Heredoc.from_word(self.shell) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cmd(CommandLine):
    keyword = "CMD"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrypoint(CommandLine):
    keyword = "ENTRYPOINT"


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer(Instruction):
    """COPY and ADD: `sources` are paths (and URLs), `heredocs` are files written here."""

    sources: tuple[str, ...]
    destination: str
    heredocs: tuple[Heredoc, ...] = ()
    chown: str = ""
    chmod: str = ""
    link: bool = False
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy(Transfer):
    """`from_` is a stage's name or number, an image, or a named context; "" is the context."""

    keyword = "COPY"

    from_: str = ""
    parents: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Add(Transfer):
    """`unpack` None: local archives are unpacked, downloaded ones are not."""

    keyword = "ADD"

    checksum: str = ""
    keep_git_dir: bool = False
    unpack: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Env(Instruction):
    keyword = "ENV"

    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Label(Instruction):
    keyword = "LABEL"

    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arg(Instruction):
    """Names with their defaults, None where there is none."""

    keyword = "ARG"

    pairs: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workdir(Instruction):
    keyword = "WORKDIR"

    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class User(Instruction):
    keyword = "USER"

    user: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Expose(Instruction):
    """Words as written; `engine.dockerfile.ports.exposed_ports` reads one after expansion."""

    keyword = "EXPOSE"

    ports: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume(Instruction):
    keyword = "VOLUME"

    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shell(Instruction):
    keyword = "SHELL"

    args: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StopSignal(Instruction):
    keyword = "STOPSIGNAL"

    signal: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthCheck(Instruction):
    """`check` as the image config has it; its test is ("NONE",) where there is to be none."""

    keyword = "HEALTHCHECK"

    check: Healthcheck


@dataclass(frozen=True, slots=True, kw_only=True)
class OnBuild(Instruction):
    """`expression` is what the image config keeps; `instruction` is what it will be."""

    keyword = "ONBUILD"

    expression: str
    instruction: Instruction


@dataclass(frozen=True, slots=True, kw_only=True)
class Maintainer(Instruction):
    keyword = "MAINTAINER"

    name: str
