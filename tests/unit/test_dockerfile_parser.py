"""The parser against BuildKit's own, over a folder of good files, a folder of bad ones, and chance.

tests/data/dockerfile/good/NAME/Dockerfile must read as BuildKit's parser (package `dockerfile`)
reads it; bad/NAME/Dockerfile must fail exactly as its error.json says.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import dockerfile as buildkit  # type: ignore[import-not-found]
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.dockerfile import instructions as ast
from engine.dockerfile import parse, parse_trigger
from engine.dockerfile.directives import Check
from engine.errors import DockerfileError
from engine.oci import Healthcheck

DATA = Path(__file__).parent.parent / "data" / "dockerfile"
GOOD = sorted(path.name for path in (DATA / "good").iterdir())
HEREDOC_WORD = re.compile(r"\A\d*<<-?|['\"\\]")
BAD = sorted(path.name for path in (DATA / "bad").iterdir())


def arguments(node: ast.Instruction) -> tuple[str, ...]:
    """The words BuildKit's parser has for it, heredoc words left out."""
    match node:
        case ast.From():
            return (node.image, node.name) if node.name else (node.image,)
        case ast.HealthCheck():
            kind, *rest = node.check.test or ()
            return (kind.removesuffix("-SHELL"), *rest)
        case ast.CommandLine():
            return (node.args or ()) if node.shell is None else (node.shell,)
        case ast.Transfer():
            return (*node.sources, node.destination)
        case ast.Env() | ast.Label():
            return tuple(text for pair in node.pairs for text in pair)
        case ast.Arg():
            return tuple(name if value is None else f"{name}={value}" for name, value in node.pairs)
        case ast.Expose():
            return node.ports
        case ast.Volume():
            return node.paths
        case ast.Shell():
            return node.args
        case ast.Workdir():
            return (node.path,)
        case ast.User():
            return (node.user,)
        case ast.StopSignal():
            return (node.signal,)
        case ast.Maintainer():
            return (node.name,)
        case ast.OnBuild():
            return arguments(node.instruction)
    raise AssertionError(node)


def theirs(command: buildkit.Command) -> tuple[str, ...]:
    values = tuple(command.value)
    keyword = (command.sub_cmd or command.cmd).upper()
    if keyword == "FROM" and len(values) == 3:
        return values[0], values[2].lower()
    if keyword in ("COPY", "ADD") and not command.json:
        names = {heredoc.name for heredoc in command.heredocs}
        if command.sub_cmd:  # the package gives no heredocs for what is inside ONBUILD
            names = {HEREDOC_WORD.sub("", word) for word in values if word.startswith("<<")}
        return tuple(word for word in values if HEREDOC_WORD.sub("", word) not in names)
    if keyword == "HEALTHCHECK":
        return (values[0].upper(), *values[1:])
    return values


def assert_same(text: str) -> None:
    ours, command_list = parse(text).instructions, buildkit.parse_string(text)
    assert len(ours) == len(command_list)
    for node, command in zip(ours, command_list, strict=True):
        inner = node.instruction if isinstance(node, ast.OnBuild) else node
        assert node.keyword == command.cmd.upper()
        assert inner.keyword == (command.sub_cmd or command.cmd).upper()
        assert (node.line, node.end_line) == (command.start_line, command.end_line)
        assert node.flags == command.flags
        assert node.text == command.original.split("\n")[0]
        if isinstance(inner, ast.CommandLine) and not isinstance(node, ast.OnBuild):
            assert (inner.shell is None) == command.json
        assert arguments(node) == theirs(command)
        if isinstance(node, ast.Run | ast.Transfer):
            assert [(doc.name, doc.fd, doc.content) for doc in node.heredocs] == [
                (doc.name, doc.file_descriptor, doc.content) for doc in command.heredocs
            ]


@pytest.mark.parametrize("name", GOOD)
def test_reads_as_buildkit_does(name: str) -> None:
    assert_same((DATA / "good" / name / "Dockerfile").read_bytes().decode())


@pytest.mark.parametrize("name", BAD)
def test_errors_say_where_what_and_what_to_do(name: str) -> None:
    expected = json.loads((DATA / "bad" / name / "error.json").read_bytes())
    with pytest.raises(DockerfileError) as caught:
        parse((DATA / "bad" / name / "Dockerfile").read_bytes(), file=f"{name}/Dockerfile")
    error = caught.value
    source = str(error.context["source"])
    if expected["source"].endswith("…"):
        source = f"{source[:20]}…"
    assert expected == {
        "message": error.message,
        "hint": error.hint,
        "line": error.line,
        "end_line": error.end_line,
        "source": source,
    }
    assert error.hint
    assert str(error) == f"{name}/Dockerfile:{error.line}: {error.message}"


def test_every_syntax_error_of_buildkit_is_one_of_ours() -> None:
    for name in BAD:
        content = (DATA / "bad" / name / "Dockerfile").read_bytes()
        try:
            buildkit.parse_string(content.decode())
        except (buildkit.GoParseError, UnicodeDecodeError):
            with pytest.raises(DockerfileError):
                parse(content)


PIECES = st.sampled_from(
    [
        *"aZ0 \t\n\r\\`'\"$#=<>-[]{},:/",
        *("  ", "\\\n", "\\ \n", "\n\n", "\r\n", "\n#", "<<E", "<<-E", "<<'E'", "\nE\n", "\n\tE\n"),
        *("${x}", "${x:-", "${a%b}", "--", "--mount=", '["a"]', '["', "RUN ", "\nRUN ", "\nENV "),
        *("\nCOPY a ", "\nARG ", "\nLABEL ", "\nONBUILD RUN ", "\nCMD ", "\nHEALTHCHECK CMD "),
        *("한", "\u00e9", "a=", "=b ", "AS "),
    ]
)


@settings(max_examples=600, deadline=None)
@given(st.lists(PIECES, max_size=30).map("".join))
@example("\nRUN \\")
@example("\nRUN a\\\\\nRUN b")
@example("\nENV a=\\")
def test_reads_as_buildkit_does_by_chance(text: str) -> None:
    source = f"FROM scratch\n{text}"
    try:
        ours = parse(source)
    except DockerfileError as error:
        assert error.hint
        assert 1 <= error.line <= error.end_line
        return
    # Only where ours reads it: ours also checks what BuildKit checks after parsing. The package's
    # older parser takes what follows a JSON list as part of nothing; today's makes it a command.
    if not any(
        isinstance(node, ast.CommandLine | ast.OnBuild | ast.HealthCheck | ast.Transfer)
        and "[" in node.text
        for node in ours.instructions
    ):
        assert_same(source)


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=25).map("".join))
def test_no_error_of_buildkit_is_missed(text: str) -> None:
    source = f"FROM scratch\n{text}"
    try:
        buildkit.parse_string(source)
    except buildkit.GoParseError:
        with pytest.raises(DockerfileError):
            parse(source)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    try:
        parse(content)
    except DockerfileError as error:
        json.dumps(error.as_dict(), ensure_ascii=False).encode()


def only(text: str) -> ast.Instruction:
    return parse(f"FROM scratch\n{text}\n").instructions[1]


def run(text: str) -> ast.Run:
    node = only(f"RUN {text}")
    assert isinstance(node, ast.Run)
    return node


def test_every_instruction_is_typed() -> None:
    nodes = parse((DATA / "good" / "every-instruction" / "Dockerfile").read_bytes()).instructions
    kinds = {type(node) for node in nodes}
    abstract = (ast.Instruction, ast.CommandLine, ast.Transfer)
    concrete = {
        kind
        for kind in vars(ast).values()
        if isinstance(kind, type) and issubclass(kind, ast.Instruction) and kind not in abstract
    }
    assert kinds == concrete
    assert len(concrete) == 18
    source = (DATA / "good" / "every-instruction" / "Dockerfile").read_text().splitlines()
    for node in nodes:
        assert node.source == "\n".join(source[node.line - 1 : node.end_line])


def test_directives() -> None:
    found = parse(
        "# Syntax = docker/dockerfile:1 \n#escape=`\n# check=error=true;skip=A, B\nFROM a"
    )
    assert found.directives.syntax == "docker/dockerfile:1"
    assert found.directives.escape == "`"
    assert found.directives.check == Check(frozenset({"A", "B"}), error=True)
    assert parse("# check=skip=all\nFROM a").directives.check.skip_all
    assert parse("\n# escape=`\nFROM a").directives.escape == "\\"
    assert parse("# c\n# escape=`\nFROM a").directives.escape == "\\"
    assert parse("\ufeff  # escape=`\r\nFROM a").directives.escape == "`"


def test_from() -> None:
    stage = parse("FROM --platform=linux/arm64 Node:22@sha256:x as BUILD").instructions[0]
    assert isinstance(stage, ast.From)
    assert (stage.image, stage.name, stage.platform) == ("Node:22@sha256:x", "build", "linux/arm64")


def test_copy_and_add_flags() -> None:
    copy = only(
        "COPY --from=0 --chown=a:b --chmod=u+x --link --parents --exclude=x --exclude=y s d"
    )
    assert isinstance(copy, ast.Copy)
    assert (copy.from_, copy.chown, copy.chmod) == ("0", "a:b", "u+x")
    assert (copy.link, copy.parents, copy.exclude) == (True, True, ("x", "y"))
    add = only("ADD --checksum=sha256:a --keep-git-dir=true --unpack=false s d")
    assert isinstance(add, ast.Add)
    assert (add.checksum, add.keep_git_dir, add.unpack) == ("sha256:a", True, False)
    plain = only("ADD s d")
    assert isinstance(plain, ast.Add)
    assert plain.unpack is None


def test_copy_keeps_paths_and_heredocs_apart() -> None:
    copy = only("COPY a <<-x b <<'y' /d/\n\t1 $V\n\tx\n2\ny")
    assert isinstance(copy, ast.Copy)
    assert (copy.sources, copy.destination) == (("a", "b"), "/d/")
    assert [(doc.name, doc.text, doc.expand) for doc in copy.heredocs] == [
        ("x", "1 $V\n", True),
        ("y", "2\n", False),
    ]


def test_run_commands() -> None:
    assert run("a \\\n  b").command == "a   b"
    assert run('["a", "b"]').args == ("a", "b")
    assert run('["a", "b"]').command == ""
    assert run("<<-E\n\ta\n\tE").command == "a\n"
    assert run("cat <<A <<B\n1\nA\n2\nB").command == "cat <<A <<B\n1\nA\n2\nB"
    script = run("<<E\n#!/usr/bin/python3\nx\nE").script
    assert script is not None
    assert script.text == "#!/usr/bin/python3\nx\n"
    assert run("<<E\nx\nE").script is None
    assert run("cat <<E\n#!x\nE").script is None
    # After a JSON list there is a shell command, not a list with something behind it.
    assert run('["a"] && b').shell == '["a"] && b'
    copy = only('COPY ["a"] /b')
    assert isinstance(copy, ast.Copy)
    assert copy.sources == ('["a"]',)


def test_run_flags() -> None:
    node = run(
        "--mount=type=cache,id=npm,dst=/c,sharing=LOCKED,mode=0755,uid=1,gid=2 "
        "--mount=target=/src,from=base,src=/x,rw --mount=type=secret,id=t,env=T,required "
        "--mount=type=tmpfs,target=/t,size=64m --mount=type=ssh --network=host "
        "--security=insecure --device=vendor.com/x=y go"
    )
    cache, bind, secret, tmpfs, ssh = node.mounts
    assert (cache.type, cache.id, cache.target, cache.sharing) == ("cache", "npm", "/c", "locked")
    assert (cache.mode, cache.uid, cache.gid, cache.readonly) == (0o755, 1, 2, False)
    assert (bind.type, bind.from_, bind.source, bind.readonly) == ("bind", "base", "/x", False)
    assert (secret.id, secret.env, secret.required, secret.readonly) == ("t", "T", True, True)
    assert (tmpfs.size, ssh.type) == (64 << 20, "ssh")
    assert (node.network, node.security, node.devices) == ("host", "insecure", ("vendor.com/x=y",))
    late = run("--mount=type=cache,target=$T x")
    assert (late.mounts, late.mount_texts) == ((), ("type=cache,target=$T",))


def test_health_checks() -> None:
    def check(text: str) -> Healthcheck:
        node = only(f"HEALTHCHECK {text}")
        assert isinstance(node, ast.HealthCheck)
        return node.check

    assert check("none") == Healthcheck(("NONE",))
    assert check('CMD ["a", "b"]').test == ("CMD", "a", "b")
    found = check("--interval=1h1m1.5s --timeout=2ms --start-period=0 --retries=9 cmd a b")
    assert found == Healthcheck(("CMD-SHELL", "a b"), 3_661_500_000_000, 2_000_000, retries=9)


def test_onbuild_holds_what_it_will_run() -> None:
    node = only("ONBUILD COPY --link <<f /d/\n$x\nf")
    assert isinstance(node, ast.OnBuild)
    assert node.expression == "COPY --link <<f /d/\n$x\nf"
    assert isinstance(node.instruction, ast.Copy)
    assert node.instruction.link
    trigger = parse_trigger(node.expression)
    assert isinstance(trigger, ast.Copy)
    assert trigger.heredocs == node.instruction.heredocs
    assert trigger.end_line == 3
    for text in ("", "RUN a\nRUN b", "RUNN a"):
        with pytest.raises(DockerfileError) as caught:
            parse_trigger(text)
        assert caught.value.hint


def test_an_empty_line_inside_a_continuation_warns() -> None:
    found = parse("FROM a\nRUN b \\\n\n  c\n")
    assert [(one.rule, one.line, one.end_line) for one in found.warnings] == [
        ("NoEmptyContinuation", 3, 3)
    ]


def test_limits() -> None:
    assert parse("FROM a\nRUN " + "x" * 65_531).instructions
    with pytest.raises(DockerfileError, match="MiB"):
        parse("#" * (17 << 20))
    with pytest.raises(DockerfileError, match="longer"):
        parse("FROM a\nRUN " + "\u00e9" * 32_766)
    many = "FROM a\n" + "RUN x\n" * 20_000
    assert len(parse(many).instructions) == 20_001
    deep = parse("FROM a\nRUN " + "[" * 60_000).instructions[1]
    assert isinstance(deep, ast.Run)
    assert deep.shell
