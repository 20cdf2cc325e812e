"""A `node` image from Debian's nodejs and npm, as Docker Hub has one; made once, then kept.

The tar lies in a cache folder of this user's, named by what it is made of; it is made anew when
that changes. Takes about a minute and a half where Debian's packages are near.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
from pathlib import Path

_PACKAGES = "nodejs,npm,vim-tiny,procps"
_SUITE = "bookworm"
_LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")
CONFIG = {
    "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
    "Cmd": ["node"],
}


def node_tar() -> Path:
    """The root file system as a tar. Raises CalledProcessError with mmdebstrap's words."""
    made_of = hashlib.sha256(repr((_PACKAGES, _SUITE, _LEFT_OUT)).encode()).hexdigest()[:12]
    folder = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "quayside-tests"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"node-{made_of}.tar"
    with open(folder / "node.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            aside = path.with_suffix(f".{os.getpid()}.tar")
            try:
                subprocess.run(_command(aside), check=True, capture_output=True, text=True)
                aside.rename(path)
            finally:
                aside.unlink(missing_ok=True)
    return path


def _command(target: Path) -> list[str]:
    sources = sorted(Path("/etc/apt/sources.list.d").glob("debian.sources"))
    leave_out = [f"--dpkgopt=path-exclude={pattern}" for pattern in _LEFT_OUT]
    return [
        *("mmdebstrap", "--variant=minbase", f"--include={_PACKAGES}", *leave_out),
        *(_SUITE, str(target), *(str(source) for source in sources[:1])),
    ]
