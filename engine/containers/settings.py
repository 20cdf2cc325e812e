"""What a container is made of and how it is run: everything that is not its state.

Written once to containers/ID/settings.json, so that the machine knows its containers without
any database. Values are as the image and the request gave them; resolving the user or the
network happens at each start.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from engine.errors import InvalidInput
from engine.network.spec import PortBinding

_ID = re.compile(r"[0-9a-f]{64}")
_TUPLES = ("entrypoint", "cmd", "env", "exposed_ports", "volumes", "networks")


def check_id(id: str) -> str:
    """The id itself: it becomes folders and cgroups, and comes from rows too, which web can write.
    Raises InvalidInput for anything but 64 hex digits."""
    if not _ID.fullmatch(id):
        raise InvalidInput(f"not a container id: {id}", field="id")
    return id


@dataclass(frozen=True, slots=True)
class ContainerSettings:
    """`image` is the config's digest, `chain` the chain id of its layers ("" for none).

    `env` is the image's and the request's together, `NAME=value`. `volumes` are container paths
    with a folder of the container's own; `networks` names, for people. `stop_timeout` is in
    seconds; `memory` in bytes and `cpus` in processors, None without a limit.
    """

    id: str
    name: str
    image: str
    chain: str
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    working_dir: str = "/"
    user: str = ""
    hostname: str = ""
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    stop_signal: str = "SIGTERM"
    stop_timeout: int = 10
    labels: Mapping[str, str] = field(default_factory=dict)
    auto_remove: bool = False
    exposed_ports: tuple[str, ...] = ()
    ports: tuple[PortBinding, ...] = ()
    volumes: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    no_new_privileges: bool = False
    memory: int | None = None
    cpus: float | None = None
    pids: int | None = None

    def __post_init__(self) -> None:
        check_id(self.id)

    @property
    def args(self) -> tuple[str, ...]:
        return self.entrypoint + self.cmd

    def to_json(self) -> dict[str, Any]:
        """JSON-safe, one key a field."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        for name in _TUPLES:
            values[name] = list(values[name])
        values["labels"] = dict(self.labels)
        values["ports"] = [
            {
                "container_port": port.container_port,
                "protocol": port.protocol,
                "host_ip": port.host_ip,
                "host_port": port.host_port,
            }
            for port in self.ports
        ]
        return values

    @classmethod
    def from_json(cls, data: str | bytes | Mapping[str, Any]) -> ContainerSettings:
        """Keys it does not know are left out, missing ones have their defaults.

        Raises InvalidInput when it is no settings at all.
        """
        try:
            values = dict(json.loads(data) if isinstance(data, str | bytes) else data)
            known = {item.name for item in fields(cls)}
            values = {name: value for name, value in values.items() if name in known}
            for name in _TUPLES:
                if name in values:
                    values[name] = tuple(values[name])
            if "ports" in values:
                values["ports"] = tuple(PortBinding(**port) for port in values["ports"])
            return cls(**values)
        except (ValueError, TypeError) as error:
            raise InvalidInput(f"not a container's settings: {error}", field="settings") from error
