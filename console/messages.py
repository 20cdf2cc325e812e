"""What an error says to a person: a sentence and a hint, in the language of the page.

The engine raises errors with a stable id, a text for engineers and a context. Here an id (or,
where one id covers many mistakes, the text's own shape) becomes a translated sentence. An error
this module has no sentence for is shown with the engine's own text, never swallowed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.utils.functional import Promise
from django.utils.translation import get_language, gettext
from django.utils.translation import gettext_lazy as _

from console import container_sentences, file_sentences
from console.registry_sentences import detail_of
from console.storage_sentences import SENTENCES
from engine.errors import QuaysideError


@dataclass(frozen=True, slots=True)
class Explanation:
    """`text` says what happened and why, `hint` what to do, `detail` the engine's own words.

    `line`, `end_line` and `source` point into a Dockerfile, where the error does."""

    text: str
    hint: str = ""
    detail: str = ""
    field: str = ""
    line: int | None = None
    end_line: int | None = None
    source: str = ""

    def __str__(self) -> str:
        return f"{self.text} {self.hint}".strip()


# By id, for errors whose context says all there is to say.
_BY_ID: dict[str, tuple[Promise, Promise | None]] = {
    "name-taken": (
        _("The name “%(name)s” is taken."),
        _("Choose another name, or remove or rename what has it."),
    ),
    "port-taken": (
        _("Port %(port)s/%(protocol)s on %(address)s is taken by another program."),
        _("Publish on another port, leave the port empty for a free one, or stop what uses it."),
    ),
    "step-failed": (
        _("The command ended with code %(code)s."),
        _("The step's output says why. Change the Dockerfile or the source, then build again."),
    ),
    "no-space": (
        _("There is no room left on the disk."),
        _("Remove images and containers you no longer need, then try again."),
    ),
    "cancelled": (_("Cancelled."), None),
    "supervisor-lost": (
        _("The process that watched this container died, and the container with it."),
        _("Start it again."),
    ),
    "registry-unauthorized": (
        _("The registry does not let us read this image without signing in."),
        _("Check the name. If the image is private, a sign-in for its registry is needed."),
    ),
    "registry-not-found": (
        _("The registry has no such image or tag."),
        _("Check the name and the tag for typing mistakes."),
    ),
    "registry-rate-limited": (
        _("The registry answers that there were too many requests."),
        _("Wait a few minutes, then try again."),
    ),
    "registry-unavailable": (
        _("The registry cannot be reached."),
        _("Check the network and the registry's name, then try again."),
    ),
    "content-corrupt": (
        _("What the registry sent does not match its digest, so it was thrown away."),
        _("Try again. If it happens again, the image is damaged at the registry."),
    ),
    "runtime-failed": (_("The container could not be started."), None),
    "network-failed": (_("The container's network could not be set up."), None),
    "mount-failed": (_("The container's file system could not be mounted."), None),
}

# By the text's shape, for ids that cover many mistakes. Named groups fill the sentence in.
_BY_TEXT: list[tuple[re.Pattern[str], Promise, Promise | None]] = [
    (re.compile(pattern, re.DOTALL), text, hint)
    for pattern, text, hint in (
        (
            r"not a container name: (?P<name>.*)",
            _("“%(name)s” cannot be a container's name."),
            _("Letters, digits, _ . and - are allowed; begin with a letter or digit."),
        ),
        (
            r"no such container: (?P<name>.*)",
            _("There is no container “%(name)s”."),
            _("It may have been removed meanwhile."),
        ),
        (
            r"no such image here: (?P<name>.*)",
            _("There is no image “%(name)s” here."),
            _("Pull it or build it first."),
        ),
        (
            r"several (?:containers|images) begin with (?P<name>.*)",
            _("“%(name)s” is the beginning of more than one id."),
            _("Write more of it."),
        ),
        (
            r"container (?P<name>\S+) is running already",
            _("Container “%(name)s” is running already."),
            None,
        ),
        (
            r"container (?P<name>\S+) is not running",
            _("Container “%(name)s” is not running."),
            _("Start it first."),
        ),
        (
            r"container (?P<name>\S+) is running",
            _("Container “%(name)s” is still running."),
            _("Stop it first."),
        ),
        (
            r"image (?P<id>\S+) is used by (?P<names>.*)",
            _("The image is used by: %(names)s."),
            _("Remove those containers first."),
        ),
        (
            r"(?P<name>\S+) is the image's only name",
            _("“%(name)s” is the image's only name."),
            _("Remove the image instead."),
        ),
        (
            r"not an environment entry: (?P<entry>.*)",
            _("“%(entry)s” is no environment entry."),
            _("Write one KEY=value a line."),
        ),
        (
            r"a host port is given twice",
            _("A port of this machine is given twice."),
            _("Publish each once."),
        ),
        (
            r"no command: .*",
            _("The image names no command, and none was given."),
            _("Write a command, or give its Dockerfile a CMD."),
        ),
        (
            r"no such signal: (?P<signal>.*)",
            _("“%(signal)s” is no signal."),
            _("Write it like SIGTERM or 15."),
        ),
        (
            r"a (?:name for an image|tag) cannot carry a digest.*",
            _("A name for an image cannot carry a digest."),
            _("Leave the part from @sha256 on out."),
        ),
        (
            r"nothing to build",
            _("There is nothing to build yet."),
            _("Write a Dockerfile, or choose a folder that has one."),
        ),
        (
            r"the upload is not complete yet",
            _("The upload is not complete yet."),
            _("Wait until it is, then build."),
        ),
        (
            r"not a build argument's name: (?P<name>.*)",
            _("“%(name)s” cannot be a build argument's name."),
            _("Letters, digits and _ are allowed."),
        ),
        (
            r"build #(?P<number>\d+) has ended already",
            _("Build #%(number)s has ended already."),
            None,
        ),
        (
            r"not an archive: (?P<name>.*)",
            _("“%(name)s” is no archive we can read."),
            _("Choose a folder, a .tar (also .tar.gz, .tar.xz, .tar.zst) or a .zip."),
        ),
        (
            r"(?P<name>.*) is larger than (?P<size>\d+) GiB",
            _("“%(name)s” is larger than %(size)s GiB."),
            _("Leave out what the image does not need, in .dockerignore."),
        ),
        (
            r"the upload is empty",
            _("The upload is empty."),
            _("Choose a folder or an archive with files in it."),
        ),
        (
            r"no such network: (?P<name>.*)",
            _("There is no network “%(name)s”."),
            None,
        ),
        (
            r"the worker was lost (?P<n>\d+) times.*",
            _("The worker was lost %(n)s times while it worked on this."),
            _("Look at the worker's log, then try again."),
        ),
        (
            r"unknown instruction: (?P<word>.*)",
            _("There is no instruction “%(word)s”."),
            _("Look for a slip: FROM, RUN, COPY, WORKDIR, ENV, EXPOSE, CMD and others exist."),
        ),
        (
            r"(?P<word>[A-Z]+) has no (?:argument|command|port|path)",
            _("Nothing stands behind %(word)s."),
            _("Complete the line or take it out."),
        ),
        (
            r"(?P<word>COPY|ADD) needs a source and a destination",
            _("%(word)s needs a source and a destination."),
            _("Write it like COPY source /destination."),
        ),
        (
            r"FROM takes an image and, after AS, a name",
            _("FROM takes an image and, after AS, a name."),
            _("Write it like FROM node AS build."),
        ),
        (
            r"(?P<word>[A-Z]+) has no flag (?P<flag>--\S*)",
            _("%(word)s has no flag %(flag)s."),
            None,
        ),
        (
            r"not a port: (?P<port>.*)",
            _("“%(port)s” is no port."),
            _("Write a number from 1 to 65535, or a range like 8000-8010."),
        ),
        (
            r"(?P<what>.*) is not supported yet",
            _("%(what)s: not supported yet."),
            None,
        ),
        (
            r"the Dockerfile has no stage (?P<name>.*)",
            _("The Dockerfile has no stage “%(name)s”."),
            _("Name a stage with FROM image AS name."),
        ),
        (
            r"no file matches (?P<pattern>.*) in (?:.*)",
            _("No file of the source fits “%(pattern)s”."),
            _("Look at the names and at .dockerignore."),
        ),
        (
            r"(?P<pattern>.*) is not in the (?:build context|context|source).*",
            _("“%(pattern)s” is not in the source."),
            _("Paths count from the top of the source. Look for a slip in the name."),
        ),
        (
            r"(?P<pattern>.*) is left out of .* by \.dockerignore",
            _("“%(pattern)s” is left out by .dockerignore."),
            _("Take it out of .dockerignore, or add a line there that begins with !."),
        ),
        (
            r"(?P<pattern>.*) leads out of the build context",
            _("“%(pattern)s” leads out of the source."),
            _("Only files inside the source can be copied. Move it in."),
        ),
        (
            r"several sources, but (?P<path>.*) is not a folder's name",
            _("Several sources, but “%(path)s” is no folder's name."),
            _("End the destination with /."),
        ),
        (
            r"the archive is damaged or incomplete.*",
            _("The archive is damaged or incomplete."),
            _("Choose it again, or make it anew."),
        ),
        (
            r"not an archive of a known kind",
            _("That is no archive we can read."),
            _("Choose a folder, a .tar (also .tar.gz, .tar.xz, .tar.zst) or a .zip."),
        ),
        (
            r"invalid image name '(?P<name>.*)': (?:.*)",
            _("“%(name)s” is no name an image can have."),
            _("Lower-case letters, digits, . _ - and / are allowed, and a tag after a colon."),
        ),
        (
            r"no image for (?P<wanted>[^:]*): (?:.*)",
            _("The image does not exist for this machine (%(wanted)s)."),
            _("Choose another tag."),
        ),
        (
            r"this machine has no address (?P<address>.*)",
            _("This machine has no address %(address)s."),
            _("Choose every address, or this machine only."),
        ),
        (
            r"ports may not be published on (?P<address>.*) on this machine",
            _("Ports may not be published on %(address)s here."),
            _("An administrator of the machine decides which addresses may be used."),
        ),
        (
            r"host port (?P<port>.*) may not be published on this machine",
            _("Port %(port)s may not be published here."),
            _("Choose another one. An administrator of the machine decides which may be used."),
        ),
        (
            r"no free (?:address|subnet) left in (?P<range>.*)",
            _("No address is left in %(range)s."),
            _("Remove containers that are no longer used."),
        ),
        (
            r"no such command in the image: (?P<command>.*)",
            _("“%(command)s” is not in the image."),
            _("Look for a slip, or install it in the image with a step of its Dockerfile."),
        ),
        (
            r"the command cannot be executed: (?P<command>.*)",
            _("“%(command)s” cannot be executed."),
            _("Look at its mode and its first line."),
        ),
        (
            r"unable to find user (?P<name>.*): no matching entries in .*",
            _("The image has no user “%(name)s”."),
            _("Add it in the Dockerfile, or give a number."),
        ),
        (
            r"unable to find group (?P<name>.*): no matching entries in .*",
            _("The image has no group “%(name)s”."),
            _("Add it in the Dockerfile, or give a number."),
        ),
        (
            r"the working directory (?P<path>.*) is no folder in the image",
            _("The working directory “%(path)s” is no folder in the image."),
            _("Choose a folder."),
        ),
        (
            r"attach takes neither a command nor a user",
            _("Attaching takes neither a command nor a user."),
            _("Open a shell to choose them."),
        ),
        *container_sentences.SENTENCES,
        *file_sentences.SENTENCES,
        *SENTENCES,
    )
]

# By the code a step ended with: what shells mean by it.
_STEP_HINTS: dict[int, Promise] = {
    126: _("The file is there but cannot be executed. Look at its mode and its first line."),
    127: _("The command is not in the image. Install it in a step before, or look for a slip."),
    137: _("It was killed, perhaps because the memory was full."),
}

# The last resort of an id: what kind of mistake it is, with the engine's own words below it.
_GENERAL: dict[str, Promise] = {
    "invalid-input": _("Something that was entered cannot be used."),
    "invalid-reference": _("That is no name an image can have."),
    "dockerfile": _("The Dockerfile has a mistake."),
    "build-context": _("The source cannot be used as a build context."),
    "not-found": _("There is no such thing here."),
    "conflict": _("That conflicts with what is there now."),
    "wrong-state": _("Its state does not allow that now."),
    "unsupported": _("That is not supported yet."),
    "policy-denied": _("That is more than this machine allows."),
    "registry": _("The registry refused."),
    "user": _("That could not be done."),
}
_ENGINE = _("The engine failed at this. It is not your mistake; the engine's log has more.")


def explain(error: QuaysideError | Mapping[str, Any]) -> Explanation:
    """`error` as raised, or as a row keeps it (QuaysideError.as_dict)."""
    data = error.as_dict() if isinstance(error, QuaysideError) else error
    kind, message = str(data.get("id", "")), str(data.get("message", ""))
    context: Mapping[str, Any] = data.get("context") or {}
    text, hint, detail = _sentence(kind, message, str(data.get("hint", "")), context)
    line, end_line = context.get("line"), context.get("end_line")
    return Explanation(
        text=text,
        hint=hint,
        detail=detail,
        field=str(context.get("field", "")),
        line=line if isinstance(line, int) else None,
        end_line=end_line if isinstance(end_line, int) else None,
        source=str(context.get("source", "")),
    )


def _sentence(
    kind: str, message: str, hint: str, context: Mapping[str, Any]
) -> tuple[str, str, str]:
    """(text, hint, detail). Everything an engineer needs and a person does not is detail."""
    if kind in _BY_ID:
        template, advice = _BY_ID[kind]
        if kind == "step-failed":
            advice = _STEP_HINTS.get(int(context.get("code", 0)), advice)
        try:
            text = str(template) % context
        except KeyError:
            pass  # raised without the context its sentence wants: its own words say more
        else:
            told = kind.startswith(("registry", "content", "runtime", "network", "mount"))
            return text, str(advice) if advice else "", detail_of(message) if told else ""
    for pattern, template, advice in _BY_TEXT:
        match = pattern.fullmatch(message)
        if match:
            return str(template) % match.groupdict(), _advice(hint, advice), ""
    general = _GENERAL.get(kind) or (_GENERAL["user"] if kind in _BY_ID else None)
    if general is None:
        return str(_ENGINE), "", _plain(message, hint)
    if _in_english():
        return _as_sentence(message), _as_sentence(hint), ""
    return str(general), "", _plain(message, hint)


def _in_english() -> bool:
    return (get_language() or "en").startswith("en")


def _advice(hint: str, general: Promise | None) -> str:
    """The engine's hint knows the case; where it cannot be shown, the general one."""
    guess = re.fullmatch(r"did you mean (?P<word>.+)\?", hint)
    if guess:
        return gettext("Did you mean %(word)s?") % guess.groupdict()
    if hint and _in_english():
        return _as_sentence(hint)
    return str(general) if general else ""


def _as_sentence(text: str) -> str:
    """The engine's texts are English sentences without their capital and their full stop."""
    if not text:
        return ""
    end = "" if text[-1] in ".!?…" else "."
    return f"{text[0].upper()}{text[1:]}{end}"


def _plain(message: str, hint: str) -> str:
    """The engine's own words: English, and better than none."""
    return f"{message}: {hint}" if hint else message


def sentence_of(error: QuaysideError | Mapping[str, Any]) -> str:
    """All of it in one line, for lists and announcements."""
    found = explain(error)
    parts = [found.text, found.detail and gettext("(%(detail)s)") % {"detail": found.detail}]
    return " ".join(part for part in (*parts, found.hint) if part)
