"""A token server as the registry's token auth wants one: signs what it grants (distribution-spec's
`WWW-Authenticate: Bearer` flow, RS256 with the certificate in `x5c`).

    with token_server(folder, users={"ann": "secret"}, anonymous=("pull",)) as tokens:
        tokens.realm, tokens.service, tokens.issuer, tokens.bundle   # for the registry's settings
        tokens.requests   # every grant asked for, in order: (username or "", [scope, ...])
        tokens.mint("library/node", "pull", "push")

The user named TOKEN_USER signs in with `refresh` instead of a password (an identity token).
"""

from __future__ import annotations

import base64
import datetime
import json
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

IDENTITY_TOKEN = "an-identity-token"


class TokenServer:
    service = "quayside-test-registry"
    issuer = "quayside-test-tokens"

    def __init__(
        self, folder: Path, users: Mapping[str, str], anonymous: Sequence[str], lifetime: int
    ) -> None:
        self.users = dict(users)
        self.anonymous = tuple(anonymous)
        self.lifetime = lifetime
        self.requests: list[tuple[str, list[str]]] = []
        self._key = generate_private_key(public_exponent=65537, key_size=2048)
        now = datetime.datetime.now(datetime.UTC)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.issuer)])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self._key, SHA256())
        )
        self._x5c = base64.b64encode(certificate.public_bytes(Encoding.DER)).decode()
        self.bundle = folder / "token-roots.pem"
        self.bundle.write_bytes(certificate.public_bytes(Encoding.PEM))
        self.realm = ""

    def mint(self, repository: str, *actions: str, lifetime: int | None = None) -> str:
        return self._sign(
            [{"type": "repository", "name": repository, "actions": list(actions)}], lifetime
        )

    def _sign(self, access: Sequence[Mapping[str, object]], lifetime: int | None = None) -> str:
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "sub": "",
            "aud": self.service,
            "exp": now + (self.lifetime if lifetime is None else lifetime),
            "nbf": now - 5,
            "iat": now,
            "jti": uuid.uuid4().hex,
            "access": list(access),
        }
        head = {"typ": "JWT", "alg": "RS256", "x5c": [self._x5c]}
        signed = b".".join(_b64(json.dumps(part).encode()) for part in (head, claims))
        signature = self._key.sign(signed, PKCS1v15(), SHA256())
        return (signed + b"." + _b64(signature)).decode()

    def _grant(self, username: str, scopes: list[str]) -> str:
        """Signed-in people get what they ask for, others what `anonymous` allows."""
        self.requests.append((username, scopes))
        access = []
        for scope in scopes:
            kind, _, rest = scope.partition(":")
            name, _, wanted = rest.rpartition(":")
            actions = [a for a in wanted.split(",") if username or a in self.anonymous]
            access.append({"type": kind, "name": name, "actions": actions})
        return self._sign(access)


@contextmanager
def token_server(
    folder: Path,
    *,
    users: Mapping[str, str],
    anonymous: Sequence[str] = ("pull",),
    lifetime: int = 60,
) -> Iterator[TokenServer]:
    """`lifetime` in seconds; `anonymous` lists what nobody in particular may do."""
    tokens = TokenServer(folder, users, anonymous, lifetime)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            username = ""
            if authorization := self.headers.get("Authorization"):
                username, _, password = (
                    base64.b64decode(authorization.removeprefix("Basic ")).decode().partition(":")
                )
                if tokens.users.get(username) != password:
                    self._answer(401, {"errors": [{"code": "UNAUTHORIZED"}]})
                    return
            self._answer(200, self._body(username, query.get("scope", [])))

        def do_POST(self) -> None:
            """OAuth2: an identity token against an access token."""
            length = int(self.headers.get("Content-Length", "0"))
            form = parse_qs(self.rfile.read(length).decode())
            if form.get("refresh_token") != [IDENTITY_TOKEN]:
                self._answer(401, {"errors": [{"code": "UNAUTHORIZED"}]})
                return
            body = self._body("identity", form["scope"][0].split())
            self._answer(200, {"access_token": body["token"], "expires_in": body["expires_in"]})

        def _body(self, username: str, scopes: list[str]) -> dict[str, object]:
            return {"token": tokens._grant(username, scopes), "expires_in": tokens.lifetime}

        def _answer(self, status: int, body: Mapping[str, object]) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    with serve_http(Handler) as address:
        tokens.realm = f"http://{address}/token"
        yield tokens


@contextmanager
def serve_http(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Yields `127.0.0.1:PORT`; one thread a connection, all gone at the end."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _b64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
