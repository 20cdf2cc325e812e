"""Sign-in data from a file in Docker's own format (`~/.docker/config.json`).

    {"auths": {"registry.example.com": {"auth": "base64 of user:password"}}}

Credential helpers and stores are programs of the person who ran `docker login`; they are not run.
"""

from __future__ import annotations

import base64
import binascii
import json
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
