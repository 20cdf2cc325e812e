"""A site that serves the Docker API over TLS as well, with a certificate of its own."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.box_site import BoxSite
from tests.site import free_port, running_site

# Another than `docker`: one that each Debian has.
SOCKET_GROUP = "users"


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """(certificate, key) of 127.0.0.1, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "quayside test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, SHA256())
    )
    paths = folder / "ca.pem", folder / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(Encoding.PEM))
    paths[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return paths


class Far(NamedTuple):
    site: BoxSite
    address: str
    folder: Path

    def docker(
        self, *words: str, token: str = "", text: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """The CLI, which checks our certificate against the one it was given."""
        headers = {"HttpHeaders": {"X-Quayside-Token": token}} if token else {}
        (self.folder / "config.json").write_text(json.dumps(headers))
        return subprocess.run(
            [
                *("docker", "--tlsverify", f"--tlscacert={self.folder}/ca.pem"),
                *("--tlscert=", "--tlskey=", "-H", f"tcp://{self.address}", *words),
            ],
            env={"PATH": os.environ["PATH"], "DOCKER_CONFIG": str(self.folder)},
            input=text,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Far]:
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = make_certificate(folder)
    address = f"127.0.0.1:{free_port()}"
    with running_site(
        QUAYSIDE_API_ADDRESS=address,
        QUAYSIDE_API_TLS_CERT=str(certificate),
        QUAYSIDE_API_TLS_KEY=str(key),
        QUAYSIDE_SOCKET_GROUP=SOCKET_GROUP,
    ) as site:
        box = BoxSite(site)
        try:
            yield Far(box, address, folder)
        finally:
            box.close()
