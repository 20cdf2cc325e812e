"""Endpoints: which servers are asked for a registry's images, in which order.

The registry's mirrors first, then the registry itself (its *origin*). Pure: who was named by the
administrator (mirrors, insecure registries) is *trusted* to lie inside the host's own network and
to redirect there; an origin that only a user named is not (security case 13, held by
engine.registry.transport). Leaves asking to engine.registry.session.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from engine.errors import InvalidInput
from engine.registry.auth import Credentials

DOCKER_HUB = "docker.io"
_HUB_HOST = "registry-1.docker.io"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One server. `host` has its port where one was given; `prefix` is put before repositories.

    `verify`: whether its TLS certificate must be sound. `probe`: a first try (TLS at an insecure
    registry) whose failure says nothing where a later endpoint answers.
    """

    scheme: str
    host: str
    prefix: str = ""
    mirror: bool = False
    trusted: bool = False
    verify: bool = True
    probe: bool = False
    credentials: Credentials | None = field(default=None, repr=False)

    def repository(self, path: str) -> str:
        """The repository's name at this endpoint."""
        return f"{self.prefix}/{path}" if self.prefix else path

    def url(self, path: str, rest: str) -> str:
        """`rest` is /manifests/TAG or /blobs/DIGEST (distribution-spec, Endpoints)."""
        return f"{self.scheme}://{self.host}/v2/{self.repository(path)}{rest}"

    def base(self) -> str:
        """Where a registry says that it is one (distribution-spec, Determining Support)."""
        return f"{self.scheme}://{self.host}/v2/"

    def __str__(self) -> str:
        return f"mirror {self.scheme}://{self.host}" if self.mirror else self.host


def endpoints(
    domain: str,
    *,
    mirrors: Sequence[str] = (),
    insecure: Collection[str] = (),
    credentials: Credentials | None = None,
) -> tuple[Endpoint, ...]:
    """All endpoints of a reference's domain in the order of asking.

    `mirrors` are http(s) addresses; a path in one is a prefix of every repository (as proxying
    registries want it), a user and password in one sign in there: `credentials` are the origin's
    and go nowhere else. `insecure` holds hosts, host:port or networks (10.0.0.0/8), as Docker's
    setting: TLS without a check first, then plain http. Raises InvalidInput for a bad mirror.
    """
    host = _HUB_HOST if domain == DOCKER_HUB else domain
    found = [_mirror(url, insecure) for url in mirrors]
    trusted = any(mirror.host == host for mirror in found)
    if _listed(host, insecure):
        tls, plain = (
            Endpoint(
                scheme,
                host,
                trusted=True,
                verify=False,
                probe=scheme == "https",
                credentials=credentials,
            )
            for scheme in ("https", "http")
        )
        return (*found, tls, plain)
    return (*found, Endpoint("https", host, trusted=trusted, credentials=credentials))


def _mirror(url: str, insecure: Collection[str]) -> Endpoint:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
        raise InvalidInput(
            f"not a registry mirror's address: {parts.scheme}://{parts.hostname or ''}",
            hint="write it like http://127.0.0.1:5000",
            field="mirrors",
        )
    host = parts.netloc.rpartition("@")[2]
    credentials = None
    if parts.username:
        credentials = Credentials(unquote(parts.username), unquote(parts.password or ""))
    return Endpoint(
        parts.scheme,
        host,
        prefix=parts.path.strip("/"),
        mirror=True,
        trusted=True,
        verify=not _listed(host, insecure),
        credentials=credentials,
    )


def _listed(host: str, insecure: Collection[str]) -> bool:
    name = urlsplit(f"//{host}").hostname or ""
    if host in insecure or name in insecure:
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False  # a name: only its own entry lists it
    return any(address in network for network in _networks(insecure))


def _networks(
    insecure: Collection[str],
) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    found = []
    for entry in insecure:
        if "/" in entry:
            try:
                found.append(ipaddress.ip_network(entry, strict=False))
            except ValueError as error:
                raise InvalidInput(
                    f"not a registry or a network: {entry}",
                    hint="write host, host:port or a network like 10.0.0.0/8",
                    field="insecure_registries",
                ) from error
    return found
