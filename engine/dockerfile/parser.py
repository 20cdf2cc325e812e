"""parse: from a Dockerfile's text to typed instructions with their lines, or one exact error.

    lines -> directives -> statement -> words -> arguments -> instruction

Every error is a DockerfileError with the lines at fault, their text and a hint. Stages, ARG scopes
and what can be built are left to engine.build; lint to a module of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

from engine.dockerfile import heredoc
from engine.dockerfile.arguments import read_instruction, takes_heredocs
from engine.dockerfile.directives import DEFAULT_ESCAPE, DirectiveReader, Directives
from engine.dockerfile.heredoc import Heredoc
from engine.dockerfile.instructions import Arg, From, Instruction
from engine.dockerfile.lines import SPACES, Lines, Statement
from engine.dockerfile.parts import Parts, Place
from engine.dockerfile.words import split_command
from engine.errors import DockerfileError, InvalidInput

MAX_SIZE = 16 << 20
"""Bytes of a Dockerfile; a bigger one is a mistake."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A build check that is not met; `rule` is Docker's name for it. Lines as in Instruction."""

    rule: str
    message: str
    line: int
    end_line: int


@dataclass(frozen=True, slots=True)
class Dockerfile:
    """`instructions` in order: global ARGs, then stages that begin with FROM, at least one."""

    file: str
    directives: Directives
    instructions: tuple[Instruction, ...]
    warnings: tuple[Finding, ...]


def parse(source: str | bytes, file: str = "Dockerfile") -> Dockerfile:
    """Raises DockerfileError."""
    return _Parser(source, file, DirectiveReader()).dockerfile()


def parse_trigger(expression: str, escape: str = DEFAULT_ESCAPE) -> Instruction:
    """One instruction of an image's ONBUILD list, lines from 1. Raises DockerfileError."""
    return _Parser(expression, "ONBUILD", DirectiveReader(escape, done=True)).trigger()


class _Parser:
    def __init__(self, source: str | bytes, file: str, directives: DirectiveReader) -> None:
        if len(source) > MAX_SIZE:
            raise DockerfileError(
                f"the file is larger than {MAX_SIZE >> 20} MiB",
                line=1,
                file=file,
                hint="is this a Dockerfile? put data into files of the build context",
            )
        self._lines = Lines(source, file)
        self._file = file
        self._directives = directives
        self._instructions: list[Instruction] = []
        self._warnings: list[Finding] = []

    def dockerfile(self) -> Dockerfile:
        in_stage = False
        while (statement := self._statement()) is not None:
            instruction = self._instruction(statement)
            in_stage = in_stage or isinstance(instruction, From)
            if not in_stage and not isinstance(instruction, Arg):
                self._fail(
                    statement,
                    f"{instruction.keyword} comes before the first FROM",
                    "begin with FROM image; only ARG may stand before it",
                )
            self._instructions.append(instruction)
        if not in_stage:
            self._fail(
                Statement("", max(self._lines.number, 1), max(self._lines.number, 1)),
                "the file has no FROM" if self._instructions else "the file has no instructions",
                "begin with FROM image, like FROM node:22, or FROM scratch",
            )
        return Dockerfile(
            self._file,
            self._directives.directives,
            tuple(self._instructions),
            tuple(self._warnings),
        )

    def trigger(self) -> Instruction:
        statement = self._statement()
        if statement is None:
            self._fail(Statement("", 1, 1), "an empty ONBUILD trigger", "rebuild the base image")
        instruction = self._instruction(statement)
        following = self._statement()
        if following is not None:
            self._fail(following, "an ONBUILD trigger of two lines", "rebuild the base image")
        return instruction

    def _statement(self) -> Statement | None:
        """The next statement, over comments and blank lines."""
        while (raw := self._lines.read()) is not None:
            line = raw.rstrip("\r").lstrip(SPACES)
            try:
                self._directives.consider(line)
            except InvalidInput as error:
                number = self._lines.number
                self._fail(Statement(line, number, number), error.message, error.hint, error)
            if not line or line.startswith("#"):
                continue
            statement = self._lines.statement(line, self._directives.escape)
            self._warnings += [
                Finding(
                    "NoEmptyContinuation", "an empty line inside a continuation", number, number
                )
                for number in statement.empty_lines
            ]
            return statement
        return None

    def _instruction(self, statement: Statement) -> Instruction:
        self._check_text(statement, statement.text)
        written, flags, rest = split_command(statement.text)
        keyword = written.upper()
        if not keyword:
            self._fail(statement, "the line continues nothing", "remove the escape at its end")
        try:
            heredocs = self._heredocs(statement, keyword, rest)
            end_line = self._lines.number
            place = Place(
                line=statement.line,
                end_line=end_line,
                source=self._lines.source(statement.line, end_line),
                text=statement.text,
                flags=flags,
            )
            return read_instruction(Parts(keyword, rest, self._directives.escape, heredocs, place))
        except DockerfileError:
            raise
        except InvalidInput as error:
            unknown = error.message.startswith("unknown instruction")
            hint = self._hint_for_unknown(statement, error.hint) if unknown else error.hint
            self._fail(statement, error.message, hint, error)

    def _heredocs(self, statement: Statement, keyword: str, rest: str) -> tuple[Heredoc, ...]:
        """Announced in the statement, with the bodies that follow it."""
        if not takes_heredocs(keyword, rest):
            return ()
        found = []
        for announced in heredoc.find(statement.text):
            body = self._lines.heredoc(announced.name, announced.strip_tabs)
            if body is None:
                self._fail(
                    statement,
                    f"the heredoc {announced.name} does not end",
                    f"write {announced.name} alone on a line after it",
                )
            self._check_text(statement, body)
            found.append(
                Heredoc(announced.name, body, announced.expand, announced.strip_tabs, announced.fd)
            )
        return tuple(found)

    def _hint_for_unknown(self, statement: Statement, meant: str) -> str:
        if not self._instructions:
            return meant or "is this a Dockerfile? it begins with FROM image"
        source = self._lines.source(statement.line, statement.line)
        if meant and source[:1] not in (" ", "\t"):
            return meant
        previous, escape = self._instructions[-1].end_line, self._directives.escape
        return f"if this goes on from line {previous}, end that line with {escape}"

    def _check_text(self, statement: Statement, text: str) -> None:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            self._fail(statement, "the text is not UTF-8", "save the file as UTF-8", error)

    def _fail(
        self, statement: Statement, message: str, hint: str, cause: Exception | None = None
    ) -> NoReturn:
        raise DockerfileError(
            message,
            line=statement.line,
            end_line=statement.end_line,
            source=self._lines.source(statement.line, statement.end_line),
            file=self._file,
            hint=hint,
        ) from cause
