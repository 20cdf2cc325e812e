"""How the states of containers, builds and operations look: one place for shape, word, colour.

Pure: rows in, values out. `tone` is a class of app.css (state-TONE), `shape` an icon's name.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from django.utils import timezone
from django.utils.functional import Promise
from django.utils.translation import gettext, gettext_lazy, pgettext_lazy

from engine.models import Build, Container, Operation


@dataclass(frozen=True, slots=True)
class State:
    tone: str
    shape: str
    word: str


class _Look(NamedTuple):
    tone: str
    shape: str
    word: Promise


_CONTAINER = {
    Container.State.CREATED: _Look("idle", "s-queued", pgettext_lazy("container", "created")),
    Container.State.RUNNING: _Look("run", "s-run", pgettext_lazy("container", "running")),
    Container.State.PAUSED: _Look("warn", "s-paused", pgettext_lazy("container", "paused")),
    Container.State.RESTARTING: _Look("build", "s-build", pgettext_lazy("container", "restarting")),
    Container.State.REMOVING: _Look("build", "s-build", pgettext_lazy("container", "removing")),
    Container.State.DEAD: _Look("fail", "s-fail", pgettext_lazy("container", "dead")),
}

_HEALTH = {
    "starting": _Look("run", "s-run", pgettext_lazy("health", "running, not checked yet")),
    "healthy": _Look("run", "s-run", pgettext_lazy("health", "healthy")),
    "unhealthy": _Look("warn", "s-warn", pgettext_lazy("health", "unhealthy")),
}

_PENDING = {
    Operation.Kind.CONTAINER_CREATE: gettext_lazy("creating"),
    Operation.Kind.CONTAINER_START: gettext_lazy("starting"),
    Operation.Kind.CONTAINER_STOP: gettext_lazy("stopping"),
    Operation.Kind.CONTAINER_KILL: gettext_lazy("killing"),
    Operation.Kind.CONTAINER_RESTART: gettext_lazy("restarting"),
    Operation.Kind.CONTAINER_REMOVE: gettext_lazy("removing"),
    Operation.Kind.CONTAINER_PAUSE: gettext_lazy("pausing"),
    Operation.Kind.CONTAINER_UNPAUSE: gettext_lazy("going on"),
    Operation.Kind.CONTAINER_UPDATE: gettext_lazy("changing"),
    Operation.Kind.IMAGE_REMOVE: gettext_lazy("removing"),
}

_BUILD = {
    Build.State.QUEUED: _Look("idle", "s-queued", pgettext_lazy("build", "waiting")),
    Build.State.RUNNING: _Look("build", "s-build", pgettext_lazy("build", "building")),
    Build.State.DONE: _Look("run", "s-done", pgettext_lazy("build", "built")),
    Build.State.FAILED: _Look("fail", "s-fail", pgettext_lazy("build", "failed")),
    Build.State.CANCELLED: _Look("idle", "s-cancelled", pgettext_lazy("build", "cancelled")),
}

_OPERATION = {
    Operation.State.QUEUED: _Look("idle", "s-queued", pgettext_lazy("operation", "waiting")),
    Operation.State.RUNNING: _Look("build", "s-build", pgettext_lazy("operation", "under way")),
    Operation.State.DONE: _Look("run", "s-done", pgettext_lazy("operation", "done")),
    Operation.State.FAILED: _Look("fail", "s-fail", pgettext_lazy("operation", "failed")),
    Operation.State.CANCELLED: _Look(
        "idle", "s-cancelled", pgettext_lazy("operation", "cancelled")
    ),
}


def of_container(container: Container, pending: str | None = None) -> State:
    """`pending` is the kind of an open operation on it: what is being done shows before what is.

    An exit code other than 0 is a failure unless somebody stopped the container."""
    if pending in _PENDING:
        return State("build", "s-build", str(_PENDING[Operation.Kind(pending)]))
    if container.state == Container.State.EXITED:
        word = gettext("exited (%(code)s)") % {"code": container.exit_code}
        if container.exit_code and not container.stopped_by_hand:
            return State("fail", "s-fail", word)
        return State("idle", "s-exited", word)
    if container.state == Container.State.RESTARTING:
        return _restarting(container)
    if container.state == Container.State.RUNNING and container.health:
        look = _HEALTH.get(container.health["status"])
        if look is not None:
            return State(look.tone, look.shape, str(look.word))
    if container.error and not container.is_running:
        return State("fail", "s-fail", gettext("start failed"))
    look = _CONTAINER[Container.State(container.state)]
    return State(look.tone, look.shape, str(look.word))


def _restarting(container: Container) -> State:
    """Between two starts by its policy; one that ended well is no cause for worry."""
    tone, shape = ("warn", "s-warn") if container.exit_code else ("build", "s-build")
    left = (container.restart_at - timezone.now()).total_seconds() if container.restart_at else 0
    values = {"seconds": math.ceil(left), "count": container.restart_count}
    if left < 1:
        return State(tone, shape, gettext("restarting (%(count)s)") % values)
    return State(tone, shape, gettext("restarting in %(seconds)s s (%(count)s)") % values)


def of_build(build: Build) -> State:
    look = _BUILD[Build.State(build.state)]
    return State(look.tone, look.shape, str(look.word))


def of_operation(operation: Operation) -> State:
    look = _OPERATION[Operation.State(operation.state)]
    return State(look.tone, look.shape, str(look.word))
