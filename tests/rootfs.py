"""A small root file system made of busybox-static: what tests run containers in."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from pathlib import Path

PASSWD = """root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
app:x:1000:1000:app:/home/app:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/bin/false
"""
GROUP = """root:x:0:
daemon:x:1:
staff:x:50:app
app:x:1000:
audio:x:29:app,daemon
nogroup:x:65534:
"""


@cache
def busybox() -> Path:
    """The host's static busybox; a missing one is an error that says so."""
    found = shutil.which("busybox")
    assert found, "busybox is missing: install Debian's busybox-static"
    return Path(found)


@cache
def applets() -> tuple[str, ...]:
    done = subprocess.run([busybox(), "--list"], check=True, capture_output=True, text=True)
    return tuple(name for name in done.stdout.split() if name != "busybox")


def make_rootfs(target: Path) -> Path:
    """Fill `target` (made if missing) with busybox, its applets as links, and a few users."""
    for name in ("bin", "dev", "etc", "home/app", "proc", "root", "sys", "tmp", "usr", "var"):
        (target / name).mkdir(parents=True, exist_ok=True)
    target.chmod(0o755)
    (target / "tmp").chmod(0o1777)
    (target / "home/app").chmod(0o755)
    shutil.copy2(busybox(), target / "bin/busybox")
    for name in applets():
        (target / "bin" / name).symlink_to("busybox")
    (target / "etc/passwd").write_text(PASSWD)
    (target / "etc/group").write_text(GROUP)
    return target
