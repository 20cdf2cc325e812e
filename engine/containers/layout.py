"""Where a container's files lie, and the lock that all who change it hold.

containers/ID/settings.json   what it is; there from the end of `create` on
containers/ID/lock            held by whoever changes the container's state
containers/ID/rootfs/         where its file system is mounted while it runs
containers/ID/bundle/         config.json for the runtime; conmon's attach, ctl, winsz
containers/ID/log/            its log (engine.containers.logs)
containers/ID/etc/            hosts, resolv.conf, hostname: bind mounted
containers/ID/shm/            its /dev/shm, where others may share it
containers/ID/exec/EXECID/    as bundle and log, for each exec
exits/ID.GENERATION/          of one start: exit code, conmon.pid, started.json, finished.json
exits/exec.EXECID/            of one exec: the same
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from engine.config import EngineConfig
from engine.containers.settings import check_id


def snapshot_key(id: str) -> str:
    """The key of a container's writable layer."""
    return f"container-{id}"


class ContainerDir:
    """Paths only; nothing is made but by `lock`. Raises InvalidInput for what is no id."""

    def __init__(self, config: EngineConfig, id: str) -> None:
        self.id = check_id(id)
        self.path = config.containers_dir / id
        self._exits = config.exits_dir

    @property
    def settings(self) -> Path:
        return self.path / "settings.json"

    @property
    def bundle(self) -> Path:
        return self.path / "bundle"

    @property
    def rootfs(self) -> Path:
        return self.path / "rootfs"

    @property
    def snapshot(self) -> str:
        return snapshot_key(self.id)

    @property
    def log(self) -> Path:
        """A folder: read it with LogReader."""
        return self.path / "log"

    @property
    def etc(self) -> Path:
        return self.path / "etc"

    @property
    def shm(self) -> Path:
        """Its shared memory, where others may share it."""
        return self.path / "shm"

    @property
    def attach(self) -> Path:
        """conmon's socket for the container's own process."""
        return self.bundle / "attach"

    def exec(self, exec_id: str) -> Path:
        return self.path / "exec" / exec_id

    def logs(self) -> list[tuple[Path, Path]]:
        """(where its conmon listens, the log's folder) of the container and of each exec."""
        found = [(self.bundle, self.log)]
        with suppress(FileNotFoundError):
            found += [(folder, folder / "log") for folder in (self.path / "exec").iterdir()]
        return found

    def exec_exits(self, exec_id: str) -> Path:
        """The folder of one exec's end."""
        return self._exits / f"exec.{exec_id}"

    def remove_execs(self) -> None:
        """Forget all execs; to be called when nothing of the container runs. Idempotent."""
        if (self.path / "exec").is_dir():
            for folder in (self.path / "exec").iterdir():
                shutil.rmtree(self.exec_exits(folder.name), ignore_errors=True)
                shutil.rmtree(folder)

    def exits(self, generation: int) -> Path:
        """The folder of one start. A generation that is no number (SQLite would keep one) must
        not become a path: ValueError."""
        return self._exits / f"{self.id}.{generation:d}"

    def attempts(self) -> dict[int, Path]:
        """The folders of starts that are still on disk, by generation, the newest last."""
        found = {}
        with suppress(FileNotFoundError):
            for entry in self._exits.glob(f"{self.id}.*"):
                suffix = entry.name.partition(".")[2]
                if suffix.isdigit():
                    found[int(suffix)] = entry
        return dict(sorted(found.items()))

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the container's lock: one thread of one process at a time. Not reentrant.

        Dies with its holder. A folder that holds nothing but the lock is taken away at the end.
        """
        descriptor = self._locked()
        try:
            yield
        finally:
            if not self.settings.exists():
                # Unlinked while held: whoever waits sees that it is not the lock any more.
                with suppress(OSError):
                    if [entry.name for entry in self.path.iterdir()] == ["lock"]:
                        (self.path / "lock").unlink()
                        self.path.rmdir()
            os.close(descriptor)

    def _locked(self) -> int:
        while True:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o711)
            try:
                descriptor = os.open(
                    self.path / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600
                )
            except FileNotFoundError:
                continue  # removed by the one before us
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):
                if (self.path / "lock").stat().st_ino == os.fstat(descriptor).st_ino:
                    return descriptor
            os.close(descriptor)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Written aside and renamed: a reader sees all of it or nothing."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(json.dumps(value, sort_keys=True))
    aside.rename(path)


def read_json(path: Path) -> dict[str, Any] | None:
    """None when there is none; a file of ours that cannot be read is an error (ValueError)."""
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not isinstance(value, dict):
        raise ValueError(f"{path} is no object")
    return value
