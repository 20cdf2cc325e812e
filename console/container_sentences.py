"""Sentences for what a container's options can be refused for: (shape of the text, sentence, hint).

Read by console.messages.
"""

from __future__ import annotations

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

SENTENCES: tuple[tuple[str, Promise, Promise | None], ...] = (
    (
        r"the host's (?P<path>.*) may not be mounted into containers on this machine",
        _("The machine's folder %(path)s may not be mounted."),
        _("An administrator of the machine decides which folders may be."),
    ),
    (
        r"the capability (?P<name>\S+) may not be added on this machine",
        _("The capability %(name)s may not be added here."),
        _("An administrator of the machine decides which may be."),
    ),
    (
        r"invalid Cap(?:Add|Drop): unknown capability: \"(?P<name>.*)\"",
        _("There is no capability “%(name)s”."),
        _("Names like NET_ADMIN are in capability(7)."),
    ),
    (
        r"Minimum memory limit allowed is 6MB",
        _("Less than 6 MB of memory is too little to start with."),
        None,
    ),
    (
        r"Minimum memoryswap limit should be larger than memory limit, see usage",
        _("Memory and swap together cannot be less than the memory."),
        None,
    ),
    (
        r"You should always set the Memory limit when using Memoryswap limit, see usage",
        _("Swap is limited together with memory: give a limit for the memory too."),
        None,
    ),
    (
        r"Minimum memory limit can not be less than memory reservation limit, see usage",
        _("That is less than the memory it was promised when memory is scarce."),
        None,
    ),
    (
        r"Conflicting options: Nano CPUs and CPU (?:Period|Quota) cannot both be set",
        _("It was made with a quota of processor time of its own (--cpu-quota)."),
        _("Change that with docker update."),
    ),
    (
        r"Range of CPUs is from 0.01 to (?P<n>\d+)\.00.*",
        _("This machine has %(n)s processors: more cannot be given."),
        None,
    ),
    (
        r"can't create 'AutoRemove' container with restart policy|Restart policy cannot be .*",
        _("What is removed when it exits cannot be started again."),
        _("Choose one of the two."),
    ),
    (
        r"Container (?P<name>\S+) is paused, unpause the container before exec",
        _("Container “%(name)s” is paused."),
        _("Let it go on first."),
    ),
    (
        r"Container (?P<name>\S+) is already paused",
        _("Container “%(name)s” is paused already."),
        None,
    ),
    (
        r"Container (?P<name>\S+) is not paused",
        _("Container “%(name)s” is not paused."),
        None,
    ),
)
