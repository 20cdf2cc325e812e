"""Lays out the home: folders, owners, the secret key. Run as root by script/server, before
anything else: `python -m console.home`. Idempotent; prints nothing.

It cannot use Django's settings (they want the secret key this makes).
"""

from __future__ import annotations

import json
import os
import pwd
import secrets
from pathlib import Path

from engine.ceiling import Ceiling
from engine.config import EngineConfig
from engine.errors import EngineError


def web_user() -> pwd.struct_passwd:
    """The unprivileged user web runs as: QUAYSIDE_WEB_USER, `quayside` by default."""
    name = os.environ.get("QUAYSIDE_WEB_USER", "quayside")
    try:
        return pwd.getpwnam(name)
    except KeyError as error:
        raise EngineError(
            f"there is no user {name} on this machine",
            hint=f"script/server makes it: useradd --system --no-create-home {name}",
        ) from error


def prepare(config: EngineConfig, web: pwd.struct_passwd) -> None:
    """Every folder with its owner and mode; root's own are closed to web."""
    for path, mode, owner in (
        (config.home, 0o755, 0),
        (config.home / "db", 0o750, web.pw_uid),
        (config.home / "uploads", 0o750, web.pw_uid),
        (config.home / "static", 0o755, 0),
        (config.home / "logs", 0o700, 0),
        (config.run_dir, 0o755, 0),
        (config.content_dir, 0o700, 0),
        (config.snapshots_dir, 0o700, 0),
        (config.containers_dir, 0o700, 0),
        (config.exits_dir, 0o700, 0),
        (config.volumes_dir, 0o700, 0),
        (config.builds_dir, 0o700, 0),
        (config.network_dir, 0o700, 0),
    ):
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(mode)
        os.chown(path, owner, web.pw_gid)
    _once(config.home / "secret_key", secrets.token_urlsafe(50), 0o640, web.pw_gid)
    ceiling = json.dumps(Ceiling().to_json(), indent=2)
    _once(config.home / "ceiling.json", f"{ceiling}\n", 0o644, 0)


def _once(path: Path, text: str, mode: int, group: int) -> None:
    """Written whole or not at all, and never again."""
    if path.exists():
        return
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w") as file:
        os.fchmod(file.fileno(), mode)
        os.fchown(file.fileno(), 0, group)
        file.write(text)
    aside.rename(path)


if __name__ == "__main__":
    prepare(EngineConfig.from_environ(os.environ), web_user())
