"""The Docker API over TCP, and what it does while the queue is away: a site of its own for both."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import time
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
from tests.engine_api import EngineApi
from tests.site import free_port, running_site


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
    ) as site:
        box = BoxSite(site)
        try:
            yield Far(box, address, folder)
        finally:
            box.close()


def test_the_cli_gets_in_with_an_administrators_token(far: Far) -> None:
    token = far.site.call(
        """
        from engine.services.tokens import token_create
        result = token_create(user.pk, "test")[1]
        """
    )
    for wrong in ("", "qst_wrong"):
        refused = far.docker("ps", token=wrong)
        assert refused.returncode == 1
        assert "no valid token" in refused.stderr
    ran = far.docker("run", "--rm", "box", "echo", "over TLS", token=token)
    assert (ran.returncode, ran.stdout) == (0, "over TLS\n"), ran.stderr
    # The client's half-close of TLS ends the input, and nothing else.
    body = "".join(f"line {n}\n" for n in range(20_000))
    counted = far.docker("run", "--rm", "-i", "box", "sha256sum", token=token, text=body)
    assert counted.stdout.split()[0] == hashlib.sha256(body.encode()).hexdigest(), counted.stderr
    flood = far.docker("run", "--rm", "box", "seq", "300000", token=token)
    assert flood.stdout == "".join(f"{n}\n" for n in range(1, 300_001))
    actors = far.site.call(
        'result = list(Operation.objects.values_list("actor", flat=True).distinct())'
    )
    assert actors == ["user:1"]


def test_a_client_that_does_not_know_the_certificate_sends_nothing(far: Far) -> None:
    (far.folder / "other").mkdir()
    other = make_certificate(far.folder / "other")[0]
    refused = Far(far.site, far.address, other.parent).docker("ps", token="x")
    assert refused.returncode == 1
    assert "certificate" in refused.stderr


def test_while_the_queue_is_away(far: Far) -> None:
    """Reads and stops go on; a start waits, and its client is told."""
    api = EngineApi.of(far.site)
    running = far.site.run("trap 'exit 0' TERM; while :; do sleep 0.1; done")
    waits = far.site.command("sleep", "100", start=False)
    far.site.site.supervisorctl("stop", "redis")
    try:
        began = time.monotonic()
        answer = api.post(f"/containers/{waits.uid}/start")
        assert answer.status == 503
        assert answer.message.endswith(": the queue is away; it starts when the queue is back")
        assert time.monotonic() - began < 5
        assert api.get("/containers/json?all=1").status == 200
        assert api.post(f"/containers/{running.uid}/stop").status == 204
        assert api.post(f"/containers/{running.uid}/wait").json == {"StatusCode": 0}
        assert api.get("/info").json["ContainersRunning"] == 0
    finally:
        far.site.site.supervisorctl("start", "redis")
    deadline = time.monotonic() + 20
    while not api.get(f"/containers/{waits.uid}/json").json["State"]["Running"]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    far.site.remove_all()
