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
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

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
            r"ports cannot be published without a network",
            _("Without a network no port can be published."),
            _("Choose the bridge network, or leave the ports out."),
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
            r"attach takes neither a command nor a user",
            _("Attaching takes neither a command nor a user."),
            _("Open a shell to choose them."),
        ),
    )
]

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
    if kind in _BY_ID:
        template, advice = _BY_ID[kind]
        try:
            text = str(template) % context
        except KeyError:
            pass  # raised without the context its sentence wants: its own words say more
        else:
            shown = kind.startswith(("registry", "content")) or kind.endswith("-failed")
            detail = message if shown and kind != "step-failed" else ""
            return text, str(advice) if advice else "", detail
    for pattern, template, advice in _BY_TEXT:
        match = pattern.fullmatch(message)
        if match:
            return str(template) % match.groupdict(), str(advice) if advice else "", ""
    if kind in _GENERAL:
        return str(_GENERAL[kind]), "", _plain(message, hint)
    return str(_ENGINE), "", _plain(message, hint)


def _plain(message: str, hint: str) -> str:
    """The engine's own words: English, and better than none."""
    return f"{message}: {hint}" if hint else message


def sentence_of(error: QuaysideError | Mapping[str, Any]) -> str:
    """All of it in one line, for lists and announcements."""
    found = explain(error)
    parts = [found.text, found.detail and gettext("(%(detail)s)") % {"detail": found.detail}]
    return " ".join(part for part in (*parts, found.hint) if part)
