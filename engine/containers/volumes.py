"""Anonymous volumes: for each VOLUME a folder of the container's own, filled from the image.

The image's path is resolved inside its root by the kernel (security case 12): a symbolic link
there copies what it means inside, never the host's. Named volumes are for later.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from engine.errors import EngineError, InvalidInput
from engine.runtime import rootfs
from engine.runtime.spec import Mount


def mounts(folder: Path, targets: Iterable[str]) -> tuple[Mount, ...]:
    """The mounts of what `fill` made in `folder`. Raises InvalidInput on an impossible target."""
    return tuple(Mount(str(folder / _name(path)), path) for path in map(check, targets))


def check(target: str) -> str:
    """The container path, cleaned; InvalidInput when no volume can lie there."""
    path = os.path.normpath("/" + target.lstrip("/")) if target.startswith("/") else ""
    if not path or path == "/" or "\0" in path:
        raise InvalidInput(
            f"no volume can be mounted at {target!r}",
            hint="use an absolute path below /",
            field="volumes",
        )
    return path


def missing(folder: Path, targets: Iterable[str]) -> list[str]:
    """Those of `targets` that have no folder yet."""
    return [path for path in map(check, targets) if not (folder / _name(path)).exists()]


def fill(folder: Path, root: Path, targets: Iterable[str]) -> None:
    """Make each volume's folder, with what the image has at its path: content, owner, mode.

    `root` is the container's file system, mounted, with nothing running in it. A volume is
    there whole or not at all. Raises EngineError.
    """
    folder.mkdir(exist_ok=True, mode=0o711)
    with rootfs.opened(root) as opened:
        for path in missing(folder, targets):
            aside = folder / f".{_name(path)}"
            if aside.exists():
                shutil.rmtree(aside)
            aside.mkdir(mode=0o755)
            try:
                source = rootfs.open_at(opened, path, os.O_RDONLY | os.O_DIRECTORY)
            except OSError:
                pass  # not a folder in the image: the volume begins empty
            else:
                try:
                    _copy(source, aside)
                finally:
                    os.close(source)
            aside.rename(folder / _name(path))


def _copy(source: int, target: Path) -> None:
    # cp never follows a link on its way down, and keeps holes, hard links, xattrs and devices.
    done = subprocess.run(
        ["cp", "-a", "--", f"/proc/self/fd/{source}/.", str(target)],
        pass_fds=(source,),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        text = done.stderr.decode("utf-8", "replace").strip()
        raise EngineError(f"cannot fill the volume {target}: {text}", path=str(target))


def _name(path: str) -> str:
    return hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest()[:16]
