"""Asking registries on somebody's behalf: does a sign-in hold, what does a name stand for there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from engine.config import EngineConfig
from engine.errors import InvalidInput
from engine.oci import media_types
from engine.oci.image import Descriptor, ImageConfig, ImageIndex, Manifest
from engine.oci.platform import Platform
from engine.oci.reference import DEFAULT_DOMAIN, Reference
from engine.registry.auth import Credentials
from engine.registry.client import RegistryClient
from engine.registry.credentials import load_credentials

_HUB = ("", "docker.io", "index.docker.io", "registry-1.docker.io")


@dataclass(frozen=True, slots=True)
class Distribution:
    """What a name stands for at its registry: its descriptor, and for which platforms."""

    descriptor: Descriptor
    platforms: tuple[Platform, ...]


def sign_in(config: EngineConfig, address: str, credentials: Credentials) -> None:
    """Try the sign-in at the registry of `address` (a host, with or without https:// and path; ""
    is Docker Hub). Raises RegistryUnauthorized, RegistryUnavailable, InvalidInput."""
    host = urlsplit(address if "://" in address else f"//{address}").netloc.rpartition("@")[2]
    domain = DEFAULT_DOMAIN if host in _HUB else host
    try:
        Reference.parse(f"{domain}/x")
    except InvalidInput as error:
        raise InvalidInput(
            f"not a registry's address: {address[:200]}", hint="write host or host:port"
        ) from error
    with RegistryClient.configured(domain, config, credentials) as client:
        client.sign_in()


@contextmanager
def asking(
    config: EngineConfig, reference: Reference, credentials: Credentials | None
) -> Iterator[RegistryClient]:
    """Of the reference's registry, with the sign-in that is kept for it where none is given."""
    if credentials is None:
        credentials = load_credentials(config.home / "registries.json", reference.domain)
    with RegistryClient.configured(reference.domain, config, credentials) as client:
        yield client


def distribution(config: EngineConfig, name: str, credentials: Credentials | None) -> Distribution:
    """Raises InvalidReference and RegistryError's kinds."""
    reference = Reference.parse(name)
    with asking(config, reference, credentials) as client:
        resolved = client.resolve(reference)
        if resolved.descriptor.media_type in media_types.INDEXES:
            entries = ImageIndex.from_json(resolved.body).manifests
            found = tuple(entry.platform for entry in entries if entry.platform)
            return Distribution(resolved.descriptor, found)
        manifest = Manifest.from_json(resolved.body)
        if manifest.config.media_type not in media_types.CONFIGS:
            return Distribution(resolved.descriptor, ())
        body = client.fetch_document(reference, manifest.config)
        return Distribution(resolved.descriptor, (ImageConfig.from_json(body).platform,))
