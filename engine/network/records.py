"""What this home wants of the kernel, on disk: networks, and what each container has in them.

Written by rename *before* the kernel is changed and taken away after, so that whatever a killed
process left behind is named here. Nothing is synced: after a power cut the kernel's part is gone
too, and a record that cannot be read is as good as none.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, TypeVar

from engine.errors import InvalidInput
from engine.network.spec import Attachment, NetworkSpec, PublishedPort, check_id

T = TypeVar("T")
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ContainerRecord:
    """`address` is where `ports` lead; without any it says nothing."""

    id: str
    attachments: tuple[Attachment, ...] = ()
    address: IPv4Address | None = None
    ports: tuple[PublishedPort, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "attachments": [one.to_json() for one in self.attachments],
            "address": str(self.address) if self.address else None,
            "ports": [port.to_json() for port in self.ports],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ContainerRecord:
        return cls(
            id=check_id("container id", data["id"]),
            attachments=tuple(Attachment.from_json(one) for one in data["attachments"]),
            address=IPv4Address(data["address"]) if data["address"] else None,
            ports=tuple(PublishedPort.from_json(port) for port in data["ports"]),
        )


@dataclass(frozen=True, slots=True)
class Observed:
    """What exists of a home: on record, and in the kernel."""

    networks: tuple[NetworkSpec, ...]
    containers: tuple[ContainerRecord, ...]
    bridges: frozenset[str]
    veths: frozenset[str]
    published: tuple[tuple[str, PublishedPort, IPv4Address], ...]
    """(container id, port, address) of each map element."""
    name_servers: tuple[int, ...]
    """Pids: the end of one (pidfd) is the time to call `repair`."""
    table: bool
    obstacles: tuple[str, ...]
    """Chains of other people that drop what is forwarded or comes in: worth a warning."""


class Records:
    """Below `root`: networks/ID.json and containers/ID.json. The caller holds the home's lock."""

    def __init__(self, root: Path) -> None:
        self._networks = root / "networks"
        self._containers = root / "containers"

    def network(self, network_id: str) -> NetworkSpec | None:
        data = _read(self._networks / f"{check_id('network id', network_id)}.json")
        return _parsed(NetworkSpec.from_json, data)

    def networks(self) -> Iterator[NetworkSpec]:
        for path in _files(self._networks):
            if (network := _parsed(NetworkSpec.from_json, _read(path))) is not None:
                yield network

    def put_network(self, network: NetworkSpec) -> None:
        _write(self._networks / f"{network.id}.json", network.to_json())

    def drop_network(self, network_id: str) -> None:
        (self._networks / f"{network_id}.json").unlink(missing_ok=True)

    def container(self, container_id: str) -> ContainerRecord:
        """An empty record when there is none."""
        path = self._containers / f"{check_id('container id', container_id)}.json"
        return _parsed(ContainerRecord.from_json, _read(path)) or ContainerRecord(container_id)

    def containers(self) -> Iterator[ContainerRecord]:
        for path in _files(self._containers):
            if (record := _parsed(ContainerRecord.from_json, _read(path))) is not None:
                yield record

    def put_container(self, record: ContainerRecord) -> None:
        """Keep the record; one that says nothing is taken away."""
        path = self._containers / f"{record.id}.json"
        if record.attachments or record.ports:
            _write(path, record.to_json())
        else:
            path.unlink(missing_ok=True)

    def clear(self) -> None:
        for folder in (self._networks, self._containers):
            if folder.is_dir():
                shutil.rmtree(folder)


def write_aside(path: Path, text: str) -> None:
    """Replace `path` in one step; what a kill leaves aside is hidden and overwritten next time.

    On a full disk a shorter text takes the place of the longer one where that lies: what is given
    back must not need room."""
    aside = path.with_name(f".{path.name}.new")
    try:
        aside.write_text(text)
    except OSError as error:
        aside.unlink(missing_ok=True)
        if error.errno != errno.ENOSPC or not _write_over(path, text.encode()):
            raise
    else:
        aside.rename(path)


def _write_over(path: Path, data: bytes) -> bool:
    """In blocks the file has already; False where they are too few."""
    try:
        with path.open("r+b") as file:
            if os.fstat(file.fileno()).st_size < len(data):
                return False
            file.write(data)
            file.truncate()
    except FileNotFoundError:
        return False
    return True


def _write(path: Path, data: Mapping[str, Any]) -> None:
    try:
        write_aside(path, json.dumps(data))
    except FileNotFoundError:  # the first of its kind
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_aside(path, json.dumps(data))


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError:
        logger.warning("network record is not readable and counts as none: %s", path)
        return None


def _parsed(parse: Callable[[Mapping[str, Any]], T], data: Any) -> T | None:
    if data is None:
        return None
    try:
        return parse(data)
    except (KeyError, TypeError, ValueError, InvalidInput) as error:
        logger.warning("network record has another shape and counts as none: %r", error)
        return None


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted(Path(one.path) for one in entries if not one.name.startswith("."))
