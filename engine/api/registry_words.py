"""What went wrong at a registry, in moby's words (distribution/errors.go); and the sign-in that
comes with a request (`X-Registry-Auth`)."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

from engine.api.errors import kind_of, message_of, status_of
from engine.errors import (
    InvalidInput,
    NotFound,
    QuaysideError,
    RegistryNotFound,
    RegistryUnauthorized,
    Unsupported,
)
from engine.oci.reference import Reference
from engine.registry.auth import Credentials

_DENIED = "requested access to the resource is denied"
_MAX_HEADER = 48 * 1024


def pull_error(name: str, error: QuaysideError) -> tuple[int, str]:
    """(status, message) for a pull, an inspect of a registry's image."""
    try:
        reference = Reference.parse(name)
    except QuaysideError:
        return status_of(error), message_of(error)
    kind, code = kind_of(error), str(error.context.get("code", ""))
    if issubclass(kind, RegistryUnauthorized):
        said = str(error.context.get("said") or _DENIED)
        return 404, (
            f"pull access denied for {reference.familiar_name()}, repository does not exist or may"
            f" require 'docker login': denied: {said}"
        )
    if issubclass(kind, RegistryNotFound) and code == "NAME_UNKNOWN":
        said = str(error.context.get("said") or "repository name not known to registry")
        return 404, f"repository {reference.familiar_name()} not found: name unknown: {said}"
    if issubclass(kind, RegistryNotFound):
        name = reference.familiar()
        return 404, f"manifest for {name} not found: manifest unknown: manifest unknown"
    if issubclass(kind, NotFound) and "platform" in error.context:
        platform = error.context["platform"]
        return 404, (
            f"no matching manifest for {platform} in the manifest list entries: no match for"
            " platform in manifest: not found"
        )
    return status_of(error), message_of(error)


def push_error(error: QuaysideError) -> str:
    """A line of a push's stream."""
    kind = kind_of(error)
    if issubclass(kind, RegistryUnauthorized):
        if error.context.get("status") == 401:
            return f"unauthorized: {error.context.get('said') or 'authentication required'}"
        return f"denied: {error.context.get('said') or _DENIED}"
    return message_of(error)


def sign_in_of(header: str) -> Credentials | None:
    """Of `X-Registry-Auth`: base64url of {username, password, identitytoken …}; what cannot be read
    counts as none, as with Docker. Raises Unsupported for a registry token."""
    if not header or len(header) > _MAX_HEADER:
        return None
    try:
        padded = header.replace("-", "+").replace("_", "/")
        padded += "=" * (-len(padded) % 4)
        value = json.loads(base64.b64decode(padded, validate=True))
    except (ValueError, binascii.Error):
        return None
    return credentials_of(value) if isinstance(value, Mapping) else None


def credentials_of(value: Mapping[str, Any]) -> Credentials | None:
    """Of Docker's AuthConfig; None where it names nobody. Raises Unsupported, InvalidInput."""
    if value.get("registrytoken"):
        raise Unsupported(
            "a registry token cannot be used here",
            hint="sign in with a user name and password, or an identity token",
        )
    user, password, token = (
        value.get(key) or "" for key in ("username", "password", "identitytoken")
    )
    if value.get("auth") and not user:
        try:
            pair = base64.b64decode(str(value["auth"]), validate=True).decode()
        except (ValueError, binascii.Error) as error:
            raise InvalidInput("the sign-in's auth is not base64 of user:password") from error
        user, _, password = pair.partition(":")
    if not all(isinstance(text, str) for text in (user, password, token)):
        raise InvalidInput("the sign-in must be text")
    return Credentials(user, password, identity_token=token) if user or token else None
