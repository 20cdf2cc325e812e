"""What a container is made of and how it is run: everything that is not its state.

Written once to containers/ID/settings.json, so that the machine knows its containers without
any database. Values are as the image and the request gave them; resolving the user or the
network happens at each start. `host` is Docker's HostConfig (engine.containers.options).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from engine.containers.codec import decode, encode
from engine.containers.options import EndpointSettings, HostOptions
from engine.errors import ContentCorrupt, InvalidInput
from engine.network.spec import PortBinding
from engine.oci import Healthcheck
from engine.oci.fields import JSON

_ID = re.compile(r"[0-9a-f]{64}")
# Written without what has its default: they are many and seldom set.
_SPARSE = {"host", "endpoints"}


def check_id(id: str) -> str:
    """The id itself: it becomes folders and cgroups, and comes from rows too, which web can write.
    Raises InvalidInput for anything but 64 hex digits."""
    if not _ID.fullmatch(id):
        raise InvalidInput(f"not a container id: {id}", field="id")
    return id


@dataclass(frozen=True, slots=True)
class ContainerSettings:
    """`image` is the config's digest, `chain` the chain id of its layers ("" for none).

    `env` is the image's and the request's together: `NAME=value`, or `NAME` for
    one that is to be unset. `volumes` are container paths
    with an anonymous volume; `networks` names, for people; `network_mode` as given (bridge, none,
    host, container:NAME, a network's name), `endpoints` the wishes by network. `stop_timeout` is
    in seconds, -1 waits for ever. `healthcheck` is the image's and the request's together, None
    for none. `docker` is the request's HostConfig and NetworkingConfig as Docker's API gives them
    back: opaque, nothing is decided by it.
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
    domainname: str = ""
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    stop_signal: str = "SIGTERM"
    stop_timeout: int = 10
    labels: Mapping[str, str] = field(default_factory=dict)
    auto_remove: bool = False
    exposed_ports: tuple[str, ...] = ()
    ports: tuple[PortBinding, ...] = ()
    volumes: tuple[str, ...] = ()
    network_mode: str = "bridge"
    networks: tuple[str, ...] = ()
    endpoints: Mapping[str, EndpointSettings] = field(default_factory=dict)
    healthcheck: Healthcheck | None = None
    host: HostOptions = field(default_factory=HostOptions)
    docker: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_id(self.id)

    @property
    def args(self) -> tuple[str, ...]:
        return self.entrypoint + self.cmd

    def to_json(self) -> dict[str, JSON]:
        """JSON-safe, one key a field; those of `host` only where they are not the default."""
        values = {
            item.name: encode(getattr(self, item.name), sparse=item.name in _SPARSE)
            for item in fields(self)
            if item.name != "healthcheck"
        }
        values["healthcheck"] = self.healthcheck.to_dict() if self.healthcheck else None
        return values

    @classmethod
    def from_json(cls, data: str | bytes | Mapping[str, object]) -> ContainerSettings:
        """Keys it does not know are left out, missing ones have their defaults.

        Raises InvalidInput when it is no settings at all.
        """
        try:
            values = dict(json.loads(data) if isinstance(data, str | bytes) else data)
            health = values.pop("healthcheck", None)
            if health is not None:
                values["healthcheck"] = Healthcheck.from_json(health)
            return decode(cls, values)
        except (ValueError, TypeError, ContentCorrupt) as error:
            raise InvalidInput(f"not a container's settings: {error}", field="settings") from error
