"""From a statement's parts to a typed instruction: one reader for each keyword.

Checks all that can be told without the values of variables; what has a `$` in it is checked after
expansion, by whoever expands. Readers raise InvalidInput; the parser adds file and lines.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from engine.dockerfile import instructions as ast
from engine.dockerfile.durations import parse_duration
from engine.dockerfile.flags import Flags, Kind, did_you_mean
from engine.dockerfile.heredoc import Heredoc
from engine.dockerfile.mounts import parse_mount
from engine.dockerfile.parts import Parts, Place
from engine.dockerfile.ports import exposed_ports
from engine.dockerfile.words import (
    json_list,
    split_blanks,
    split_command,
    split_first,
    split_pairs,
    split_words,
)
from engine.errors import InvalidInput
from engine.oci import Healthcheck, Platform

HEREDOC_KEYWORDS = ("RUN", "COPY", "ADD")

_STAGE_NAME = re.compile(r"[a-z][a-z0-9-_.]*")
_NOT_IN_ONBUILD = ("ONBUILD", "FROM", "MAINTAINER")
_TRANSFER_FLAGS = {
    "chown": Kind.TEXT,
    "chmod": Kind.TEXT,
    "link": Kind.SWITCH,
    "exclude": Kind.MANY,
}
_MIN_DURATION = 1_000_000
_MAX_RETRIES = 2**31 - 1


def read_instruction(parts: Parts) -> ast.Instruction:
    """Raises InvalidInput with a hint."""
    read = _READERS.get(parts.keyword)
    if read is None:
        written, _, _ = split_command(parts.place["text"])
        raise InvalidInput(f"unknown instruction: {written}", hint=did_you_mean(written, _READERS))
    return read(parts)


def takes_heredocs(keyword: str, rest: str) -> bool:
    """Whether `<<EOF` in it is a heredoc; ONBUILD asks what it holds. The exec form has none."""
    if keyword == "ONBUILD":
        keyword, _, rest = split_command(rest)
    if keyword.upper() not in HEREDOC_KEYWORDS:
        return False
    try:
        return json_list(rest) is None
    except InvalidInput:
        return False


def _from(parts: Parts) -> ast.Instruction:
    flags = parts.flags(platform=Kind.TEXT)
    words = split_blanks(parts.rest)
    name = None
    if len(words) == 3 and words[1].upper() == "AS":
        name = words[2].lower()
        if not _STAGE_NAME.fullmatch(name):
            raise InvalidInput(
                f"not a stage's name: {words[2]}",
                hint="it begins with a letter and has letters, digits, - _ and . only",
            )
    elif len(words) != 1:
        hint = "write FROM image, or FROM image AS name"
        if len(words) > 1 and words[1].startswith("#"):
            hint = "a comment needs a line of its own"
        raise InvalidInput("FROM takes an image and, after AS, a name", hint=hint)
    platform = flags.text("platform")
    if platform and "$" not in platform:
        Platform.parse(platform)
    return ast.From(**parts.place, image=words[0], name=name, platform=platform or None)


def _command_line(parts: Parts) -> tuple[str | None, tuple[str, ...] | None]:
    listed = json_list(parts.rest)
    if listed is not None:
        return None, listed
    if not parts.rest:
        raise InvalidInput(
            f"{parts.keyword} has no command",
            hint=f"write one after it, or {parts.keyword} [] for none"
            if parts.keyword != "RUN"
            else "write one after it",
        )
    return parts.rest, None


def _run(parts: Parts) -> ast.Instruction:
    flags = parts.flags(mount=Kind.MANY, network=Kind.TEXT, security=Kind.TEXT, device=Kind.MANY)
    shell, args = _command_line(parts)
    if args == ():
        raise InvalidInput("RUN has an empty command", hint="write one into the list")
    texts = flags.many("mount")
    for text in texts:
        if re.search(r"(\A|,)from=[^,]*\$", text):
            raise InvalidInput(
                f"a mount's from takes no variable: {text}",
                hint="name a stage for it: FROM $IMAGE AS name",
            )
    has_variable = any("$" in text for text in texts)
    return ast.Run(
        **parts.place,
        shell=shell,
        args=args,
        mount_texts=texts,
        mounts=() if has_variable else tuple(parse_mount(text) for text in texts),
        network=_choice(flags, "network", ("default", "none", "host")),
        security=_choice(flags, "security", ("sandbox", "insecure")),
        devices=flags.many("device"),
        heredocs=parts.heredocs,
    )


def _choice(flags: Flags, name: str, choices: tuple[str, ...]) -> str:
    value = flags.text(name, choices[0])
    if value not in choices:
        raise InvalidInput(
            f"--{name} is not {' or '.join(choices)}: {value}",
            hint=did_you_mean(value, choices) or f"write --{name}={choices[0]}, the default",
        )
    return value


def _cmd(parts: Parts) -> ast.Instruction:
    parts.flags()
    shell, args = _command_line(parts)
    return ast.Cmd(**parts.place, shell=shell, args=args)


def _entrypoint(parts: Parts) -> ast.Instruction:
    parts.flags()
    shell, args = _command_line(parts)
    return ast.Entrypoint(**parts.place, shell=shell, args=args)


def _transferred(parts: Parts) -> tuple[tuple[str, ...], str, tuple[Heredoc, ...]]:
    """Source paths, destination, heredocs: in the order written."""
    words, is_json = parts.list_or_words()
    if len(words) < 2:
        raise InvalidInput(
            f"{parts.keyword} needs a source and a destination",
            hint=f"write {parts.keyword} {words[0] if words else 'source'} /destination",
        )
    *sources, destination = words
    bodies = {} if is_json else {heredoc.name: heredoc for heredoc in parts.heredocs}
    if bodies and _heredoc_name(destination) in bodies:
        raise InvalidInput("a heredoc is no destination", hint="write a path after it")
    paths = tuple(word for word in sources if _heredoc_name(word) not in bodies)
    named = (_heredoc_name(word) for word in sources)
    return paths, destination, tuple(bodies[name] for name in named if name in bodies)


def _heredoc_name(word: str) -> str:
    try:
        heredoc = Heredoc.from_word(word)
    except InvalidInput:
        return ""
    return heredoc.name if heredoc else ""


def _copy(parts: Parts) -> ast.Instruction:
    flags = parts.flags(**_TRANSFER_FLAGS, **{"from": Kind.TEXT}, parents=Kind.SWITCH)
    sources, destination, heredocs = _transferred(parts)
    if "$" in flags.text("from"):
        raise InvalidInput(
            f"--from takes no variable: {flags.text('from')}",
            hint="name a stage for it: FROM $IMAGE AS name",
        )
    if heredocs and flags.text("from"):
        raise InvalidInput("a heredoc comes from no stage", hint="leave --from away")
    return ast.Copy(
        **parts.place,
        sources=sources,
        destination=destination,
        heredocs=heredocs,
        chown=flags.text("chown"),
        chmod=flags.text("chmod"),
        link=flags.switch("link"),
        exclude=flags.many("exclude"),
        from_=flags.text("from"),
        parents=flags.switch("parents"),
    )


def _add(parts: Parts) -> ast.Instruction:
    flags = parts.flags(
        **_TRANSFER_FLAGS, checksum=Kind.TEXT, keep_git_dir=Kind.SWITCH, unpack=Kind.SWITCH
    )
    sources, destination, heredocs = _transferred(parts)
    return ast.Add(
        **parts.place,
        sources=sources,
        destination=destination,
        heredocs=heredocs,
        chown=flags.text("chown"),
        chmod=flags.text("chmod"),
        link=flags.switch("link"),
        exclude=flags.many("exclude"),
        checksum=flags.text("checksum"),
        keep_git_dir=flags.switch("keep-git-dir"),
        unpack=flags.switches.get("unpack"),
    )


def _env(parts: Parts) -> ast.Instruction:
    parts.flags()
    return ast.Env(**parts.place, pairs=split_pairs(parts.rest, "ENV", parts.escape))


def _label(parts: Parts) -> ast.Instruction:
    parts.flags()
    return ast.Label(**parts.place, pairs=split_pairs(parts.rest, "LABEL", parts.escape))


def _arg(parts: Parts) -> ast.Instruction:
    parts.flags()
    pairs: list[tuple[str, str | None]] = []
    for word in split_words(parts.rest, parts.escape):
        name, equals, value = word.partition("=")
        if not name:
            raise InvalidInput(f"ARG has a value without a name: {word}", hint="name it")
        pairs.append((name, value if equals else None))
    if not pairs:
        raise InvalidInput("ARG has no argument", hint="write ARG NAME or ARG NAME=default")
    return ast.Arg(**parts.place, pairs=tuple(pairs))


def _workdir(parts: Parts) -> ast.Instruction:
    return ast.Workdir(path=parts.one("a path"), **parts.place)


def _user(parts: Parts) -> ast.Instruction:
    return ast.User(user=parts.one("a name or uid:gid"), **parts.place)


def _stop_signal(parts: Parts) -> ast.Instruction:
    return ast.StopSignal(signal=parts.one("a signal, like SIGINT,"), **parts.place)


def _maintainer(parts: Parts) -> ast.Instruction:
    return ast.Maintainer(name=parts.one("a name"), **parts.place)


def _expose(parts: Parts) -> ast.Instruction:
    parts.flags()
    ports = split_blanks(parts.rest)
    if not ports:
        raise InvalidInput("EXPOSE has no port", hint="write a port after it, like 80 or 53/udp")
    for port in ports:
        if not set(port) & set("$'\"" + parts.escape):
            exposed_ports(port)
    return ast.Expose(**parts.place, ports=ports)


def _volume(parts: Parts) -> ast.Instruction:
    parts.flags()
    paths = tuple(path.strip() for path in parts.list_or_words()[0])
    if not paths or not all(paths):
        raise InvalidInput("VOLUME has no path", hint='write VOLUME /data or VOLUME ["/data"]')
    return ast.Volume(**parts.place, paths=paths)


def _shell(parts: Parts) -> ast.Instruction:
    parts.flags()
    args = json_list(parts.rest)
    if not args:
        raise InvalidInput(
            "SHELL takes a JSON list of at least one string",
            hint='write it like SHELL ["/bin/bash", "-c"]',
        )
    return ast.Shell(**parts.place, args=args)


def _health_check(parts: Parts) -> ast.Instruction:
    kind, command = split_first(parts.rest)
    if kind.upper() == "NONE":
        parts.flags()
        if command:
            raise InvalidInput("HEALTHCHECK NONE takes nothing more", hint=f"remove {command}")
        return ast.HealthCheck(**parts.place, check=Healthcheck(("NONE",)))
    flags = parts.flags(
        interval=Kind.TEXT,
        timeout=Kind.TEXT,
        start_period=Kind.TEXT,
        start_interval=Kind.TEXT,
        retries=Kind.TEXT,
    )
    if kind.upper() != "CMD":
        raise InvalidInput(
            f"HEALTHCHECK has neither CMD nor NONE: {kind}" if kind else "HEALTHCHECK has no CMD",
            hint="write HEALTHCHECK CMD command, or HEALTHCHECK NONE",
        )
    listed = json_list(command)
    if not (command if listed is None else listed):
        raise InvalidInput("HEALTHCHECK CMD has no command", hint="write one after it")
    retries = flags.text("retries", "0")
    if not retries.isdecimal() or int(retries[:11]) > _MAX_RETRIES:
        raise InvalidInput(f"--retries is no whole number: {retries}", hint="write --retries=3")
    return ast.HealthCheck(
        **parts.place,
        check=Healthcheck(
            test=("CMD-SHELL", command) if listed is None else ("CMD", *listed),
            interval=_duration(flags, "interval"),
            timeout=_duration(flags, "timeout"),
            start_period=_duration(flags, "start-period"),
            start_interval=_duration(flags, "start-interval"),
            retries=int(retries),
        ),
    )


def _duration(flags: Flags, name: str) -> int:
    value = parse_duration(flags.text(name) or "0")
    if 0 < value < _MIN_DURATION:
        raise InvalidInput(f"--{name} is shorter than 1ms", hint=f"write --{name}=1s, or longer")
    return value


def _on_build(parts: Parts) -> ast.Instruction:
    parts.flags()
    if not parts.rest:
        raise InvalidInput("ONBUILD has no instruction", hint="write one after it")
    keyword, flags, rest = split_command(parts.rest)
    if keyword.upper() in _NOT_IN_ONBUILD:
        raise InvalidInput(
            f"ONBUILD takes no {keyword.upper()}", hint=f"leave the {keyword.upper()} away"
        )
    bodies = "".join(f"\n{heredoc.content}{heredoc.name}" for heredoc in parts.heredocs)
    place: Place = {**parts.place, "text": parts.rest, "flags": flags}
    inner = read_instruction(Parts(keyword.upper(), rest, parts.escape, parts.heredocs, place))
    return ast.OnBuild(**parts.place, expression=parts.rest + bodies, instruction=inner)


_READERS: dict[str, Callable[[Parts], ast.Instruction]] = {
    "ADD": _add,
    "ARG": _arg,
    "CMD": _cmd,
    "COPY": _copy,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "FROM": _from,
    "HEALTHCHECK": _health_check,
    "LABEL": _label,
    "MAINTAINER": _maintainer,
    "ONBUILD": _on_build,
    "RUN": _run,
    "SHELL": _shell,
    "STOPSIGNAL": _stop_signal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
