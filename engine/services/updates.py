"""New limits and another restart policy for a container there is: what an operation carries."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from engine.containers import checks
from engine.containers.codec import decode, encode
from engine.containers.options import Limits, RestartPolicy
from engine.containers.settings import ContainerSettings
from engine.errors import InvalidInput


def changed(settings: ContainerSettings, args: dict[str, Any]) -> ContainerSettings:
    """The settings with the new limits and restart policy of an operation's args, or less a link.
    Raises InvalidInput."""
    host_options = settings.host
    try:
        if "limits" in args:
            host_options = replace(host_options, limits=decode(Limits, args["limits"]))
        if "restart" in args:
            host_options = replace(host_options, restart=decode(RestartPolicy, args["restart"]))
        if "unlink" in args:
            kept = [one for one in host_options.links if not one.endswith(f":{args['unlink']}")]
            host_options = replace(host_options, links=tuple(kept))
    except (ValueError, TypeError) as error:
        raise InvalidInput(f"not limits: {error}", field="limits") from error
    if settings.auto_remove and host_options.restart.name != "no":
        raise InvalidInput(
            "Restart policy cannot be updated because AutoRemove is enabled for the container",
            field="restart",
        )
    checks.check_limits(host_options.limits)
    checks.check_restart(host_options, settings.auto_remove)
    return replace(settings, host=host_options)


def arguments(limits: Limits | None, restart: RestartPolicy | None) -> dict[str, Any]:
    """What `update` reads."""
    found = {}
    if limits is not None:
        found["limits"] = encode(limits, sparse=True)
    if restart is not None:
        found["restart"] = encode(restart)
    return found
