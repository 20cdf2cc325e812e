"""Sign-in data: kept in a file in Docker's own format (`~/.docker/config.json`), or sent along with
one request and handed to the worker in a file of root's, never in a row.

    {"auths": {"registry.example.com": {"auth": "base64 of user:password"}}}

Credential helpers and stores are programs of the person who ran `docker login`; they are not run.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import secrets
from contextlib import suppress
from pathlib import Path

from engine.errors import InvalidInput
from engine.registry.auth import Credentials

_HUB = ("docker.io", "index.docker.io", "https://index.docker.io/v1/")


def load_credentials(path: Path, domain: str) -> Credentials | None:
    """What the file has for the registry `domain`; None without an entry or without a file.

    Raises InvalidInput for a file that others may read or that is not of the format.
    """
    try:
        if path.stat().st_mode & 0o077:
            raise InvalidInput(f"{path} may be read by others", hint=f"chmod 600 {path}")
        auths = json.loads(path.read_text()).get("auths", {})
        names = _HUB if domain == "docker.io" else (domain, f"https://{domain}")
        entry = next((auths[name] for name in names if name in auths), None)
        if entry is None:
            return None
        token = str(entry.get("identitytoken", ""))
        pair = base64.b64decode(entry["auth"], validate=True).decode() if entry.get("auth") else ""
        user, separator, password = pair.partition(":")
        if not token and not separator:
            raise ValueError(f"no user and password for {domain}")
        return Credentials(user, password, identity_token=token)
    except FileNotFoundError:
        return None
    except (ValueError, AttributeError, TypeError, binascii.Error) as error:
        raise InvalidInput(
            f"{path} is not in the format of docker's config.json: {error}",
            hint="docker login on another machine writes one",
        ) from error


_KEY = re.compile(r"[0-9a-f]{32}")


def hand_over(run_dir: Path, credentials: Credentials) -> str:
    """Leave them for another process of root's; the key to ask for them by. `take_back` ends it."""
    folder = run_dir / "auth"
    folder.mkdir(mode=0o700, exist_ok=True)
    key = secrets.token_hex(16)
    text = json.dumps([credentials.username, credentials.password, credentials.identity_token])
    fd = os.open(folder / key, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w") as file:
        file.write(text)
    return key


def handed_over(run_dir: Path, key: str) -> Credentials | None:
    """None without a key, or where they are gone: it is tried without then."""
    if not _KEY.fullmatch(key):
        return None
    try:
        return Credentials(*json.loads((run_dir / "auth" / key).read_text()))
    except FileNotFoundError:
        return None


def forget_strays(run_dir: Path, before: float) -> list[str]:
    """What a killed process did not take back, of before that time (seconds of the epoch)."""
    found = []
    for path in (run_dir / "auth").glob("*"):
        with suppress(FileNotFoundError):
            if path.stat().st_mtime < before:
                path.unlink()
                found.append("a sign-in nobody took back dropped")
    return found


def take_back(run_dir: Path, key: str) -> None:
    """Idempotent."""
    if _KEY.fullmatch(key):
        (run_dir / "auth" / key).unlink(missing_ok=True)
