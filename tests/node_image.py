"""A `node` image from Debian's nodejs and npm's own package, as Docker Hub has one; made once.

The layer (a gzipped tar) lies in a cache folder of this user's, named by what it is made of; it is
made anew when that changes. Takes about a minute and a half where Debian's packages are near.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from isal import igzip

# Debian's npm brings three hundred packages more; npm's own is one folder.
_PACKAGES = "nodejs,vim-tiny,procps"
_NPM = "npm@9.9.4"
_SUITE = "bookworm"
_LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")
CONFIG = {
    "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"],
    "Cmd": ["node"],
}


def node_tar() -> Path:
    """The root file system as a gzipped tar."""
    made_of = hashlib.sha256(repr((_PACKAGES, _NPM, _SUITE, _LEFT_OUT)).encode()).hexdigest()[:12]
    folder = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "quayside-tests"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"node-{made_of}.tar.gz"
    with open(folder / "node.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            aside = folder / f".node-{os.getpid()}.tar"
            try:
                npm = _run("npm", "pack", _NPM, "--silent", cwd=folder).stdout.split()[-1]
                _run(*_command(aside, folder / npm))
                packed = aside.with_suffix(".gz")
                with aside.open("rb") as plain, igzip.open(packed, "wb", compresslevel=1) as file:
                    shutil.copyfileobj(plain, file, 1 << 20)
                packed.rename(path)
            finally:
                aside.unlink(missing_ok=True)
    return path


def _run(*command: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command[0]}: {done.stderr[-2000:]}"
    return done


def _command(target: Path, npm: Path) -> list[str]:
    sources = sorted(Path("/etc/apt/sources.list.d").glob("debian.sources"))
    leave_out = [f"--dpkgopt=path-exclude={pattern}" for pattern in _LEFT_OUT]
    modules = "usr/lib/node_modules/npm"
    hook = (
        f'mkdir -p "$1/{modules}" && '
        f'tar -xzf "{npm}" --strip-components=1 --no-same-owner -C "$1/{modules}" && '
        f'ln -s ../lib/node_modules/npm/bin/npm-cli.js "$1/usr/bin/npm"'
    )
    return [
        *("mmdebstrap", "--variant=minbase", f"--include={_PACKAGES}", *leave_out),
        *(f"--customize-hook={hook}", _SUITE, str(target)),
        *(str(source) for source in sources[:1]),
    ]
