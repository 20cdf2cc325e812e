"""Sentences for errors of a container's files, by the shape of the engine's text.

Read by console.messages.
"""

from __future__ import annotations

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

SENTENCES: tuple[tuple[str, Promise, Promise | None], ...] = (
    (
        r"Could not find the file (?P<path>.*) in container (?:\S+)",
        _("There is no “%(path)s” in the container."),
        _("It may have been removed or renamed meanwhile."),
    ),
    (
        r"neither a file nor a folder: (?P<path>.*)",
        _("“%(path)s” is neither a file nor a folder."),
        _("Devices, pipes and sockets cannot be downloaded."),
    ),
    (
        r"extraction point is not a directory|not a directory",
        _("That is no folder."),
        None,
    ),
    (
        r"mounted volume is marked read-only",
        _("The volume there is mounted read-only."),
        _("Choose another folder."),
    ),
    (
        r"container rootfs is marked read-only",
        _("The container's own file system is read-only (--read-only)."),
        _("Choose a folder of one of its volumes."),
    ),
    (
        r"cannot overwrite (?:non-)?directory \"(?P<path>.*)\" with (?:.*)",
        _("“%(path)s” is a folder on one side and none on the other."),
        _("Rename or remove one of them first."),
    ),
    (
        r"container (?:\S+) has just ended",
        _("The container has just ended."),
        _("Try again."),
    ),
    (
        r"no file was chosen",
        _("No file was chosen."),
        None,
    ),
    (
        r"engined does not answer at (?:.*)|engined ended the stream: (?:.*)",
        _("The engine does not answer."),
        _("It is starting, or has stopped. Try again in a moment."),
    ),
    (
        r"the upload (?:is not here any more|cannot be read: .*|is no file)|no such upload: (?:.*)",
        _("What was uploaded is not here any more."),
        _("Upload it again."),
    ),
)
