"""What registries answered, in the page's language: the details below console.messages' sentences.

Patterns are of the engine's texts (engine.registry.responses, transport, pull); what has none here
is shown in the engine's own words. A registry's own answer stays as it was sent.
"""

from __future__ import annotations

import re

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

_WORDS: tuple[tuple[str, Promise], ...] = (
    (
        r"(?P<at>\S+) gives (?P<what>.+?) to nobody who is not signed in(?P<said>.*)",
        _("%(at)s gives %(what)s only to those who have signed in%(said)s"),
    ),
    (
        r"(?P<at>\S+) does not accept the sign-in for (?P<what>.+?)(?P<said>: .*)?",
        _("%(at)s does not accept the sign-in for %(what)s%(said)s"),
    ),
    (
        r"(?P<at>\S+) refuses (?P<what>.+?)(?P<said>: .*)?",
        _("%(at)s refuses %(what)s%(said)s"),
    ),
    (r"(?P<at>\S+) has no (?P<what>\S+)(?P<said>)", _("%(at)s has no %(what)s%(said)s")),
    (
        r"(?P<at>\S+) was asked too often(?P<said>.*)",
        _("%(at)s was asked too often%(said)s"),
    ),
    (
        r"(?P<at>\S+) answered (?P<status>.+?) for (?P<what>.+?)(?P<said>: .*)?",
        _("%(at)s answered %(status)s for %(what)s%(said)s"),
    ),
    (
        r"(?P<at>\S+) cannot be reached: (?P<said>.*)",
        _("%(at)s cannot be reached: %(said)s"),
    ),
    (
        r"(?P<at>\S+) sent (?P<what>.+?) damaged: its digest is (?P<said>.*)",
        _("%(at)s sent %(what)s damaged: its digest is %(said)s"),
    ),
    (r"(?P<at>\S+) redirects in a circle(?P<said>)", _("%(at)s redirects in a circle%(said)s")),
)
_PATTERNS = [(re.compile(pattern, re.DOTALL), text) for pattern, text in _WORDS]


def detail_of(message: str) -> str:
    for pattern, text in _PATTERNS:
        if match := pattern.fullmatch(message):
            return str(text) % {name: value or "" for name, value in match.groupdict().items()}
    return message
