"""Debian's docker-registry on loopback, and images pushed into it, for tests.

    with running_registry(tmp_path) as server:
        pushed = push_image(server, "library/node", layers=[folder], config={"Cmd": ["node"]})
        ... mirrors={"docker.io": (server.url,)} ...

A layer is tar bytes, a tar file (plain or gzip) or a folder; `config` is the inner config (Cmd,
Env, ...). Use it as a mirror, or name `server.address` in insecure_registries: an address on
loopback that only a user named is refused (security case 13).
"""

from __future__ import annotations

import ctypes
import gzip
import hashlib
import io
import json
import os
import platform
import re
import subprocess
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import urllib3
import yaml

from tests.registry_token import TokenServer, token_server

USER = "ann"
PASSWORD = "a-secret-of-ann"
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
OTHER_ARCHITECTURE = "s390x"

MEDIA = {
    "docker": {
        "manifest": "application/vnd.docker.distribution.manifest.v2+json",
        "index": "application/vnd.docker.distribution.manifest.list.v2+json",
        "config": "application/vnd.docker.container.image.v1+json",
        "layer": "application/vnd.docker.image.rootfs.diff.tar.gzip",
    },
    "oci": {
        "manifest": "application/vnd.oci.image.manifest.v1+json",
        "index": "application/vnd.oci.image.index.v1+json",
        "config": "application/vnd.oci.image.config.v1+json",
        "layer": "application/vnd.oci.image.layer.v1.tar+gzip",
    },
}

Media = Literal["docker", "oci"]


@dataclass(frozen=True, slots=True)
class RegistryServer:
    """`address` is host:port, `url` its http address, `data` the folder it keeps all in."""

    address: str
    data: Path
    tokens: TokenServer | None = None
    basic: bool = False

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def blob_file(self, digest: str) -> Path:
        """Where the registry keeps a blob: for tests that damage it behind its back."""
        hexadecimal = digest.removeprefix("sha256:")
        blobs = self.data / "docker/registry/v2/blobs/sha256"
        return blobs / hexadecimal[:2] / hexadecimal / "data"


@dataclass(frozen=True, slots=True)
class PushedImage:
    """What was pushed; `top` is what the tag names: the index if there is one."""

    manifest: str
    config: str
    layers: tuple[str, ...]
    diff_ids: tuple[str, ...]
    sizes: tuple[int, ...] = field(repr=False)
    index: str = ""

    @property
    def top(self) -> str:
        return self.index or self.manifest


@contextmanager
def running_registry(
    tmp_path: Path,
    auth: Literal["basic", "token"] | None = None,
    *,
    anonymous: Sequence[str] = ("pull",),
    token_lifetime: int = 60,
    name: str = "registry",
) -> Iterator[RegistryServer]:
    """A registry of its own on a free port, gone (with its process) at the end.

    With auth, USER and PASSWORD sign in; `anonymous` is what the token server grants to nobody
    in particular. `name` tells two registries below one tmp_path apart.
    """
    folder = tmp_path / name
    folder.mkdir(parents=True)
    settings: dict[str, Any] = {
        "version": 0.1,
        "log": {"level": "info", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": {"addr": "127.0.0.1:0", "secret": "only-for-tests"},
    }
    with ExitStack() as stack:
        tokens = None
        if auth == "basic":
            password_file = folder / "htpasswd"
            password_file.write_text(f"{USER}:{_bcrypt(PASSWORD)}\n")
            settings["auth"] = {"htpasswd": {"realm": "tests", "path": str(password_file)}}
        elif auth == "token":
            tokens = stack.enter_context(
                token_server(
                    folder, users={USER: PASSWORD}, anonymous=anonymous, lifetime=token_lifetime
                )
            )
            settings["auth"] = {
                "token": {
                    "realm": tokens.realm,
                    "service": tokens.service,
                    "issuer": tokens.issuer,
                    "rootcertbundle": str(tokens.bundle),
                }
            }
        config = folder / "config.yml"
        config.write_text(yaml.safe_dump(settings))
        address = stack.enter_context(_process(config, folder / "log"))
        yield RegistryServer(address, folder / "data", tokens, auth == "basic")


@contextmanager
def _process(config: Path, log: Path) -> Iterator[str]:
    environment = {"PATH": os.environ["PATH"], "OTEL_TRACES_EXPORTER": "none"}
    with (
        log.open("wb") as out,
        subprocess.Popen(
            ["docker-registry", "serve", str(config)],
            stdout=out,
            stderr=subprocess.STDOUT,
            env=environment,
        ) as process,
    ):
        try:
            yield _address(process, log)
        finally:
            process.kill()


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    """It says in its log which port it got."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if found := re.search(r"listening on (127\.0\.0\.1:\d+)", log.read_text()):
            return found[1]
        if process.poll() is not None:
            break
        time.sleep(0.01)
    raise AssertionError(f"docker-registry did not start: {log.read_text()}")


def push_image(
    server: RegistryServer,
    repository: str,
    tag: str = "latest",
    *,
    layers: Sequence[bytes | Path],
    config: Mapping[str, Any] | None = None,
    media: Media = "docker",
    index: bool = False,
    architecture: str = ARCHITECTURE,
    image: Mapping[str, Any] | None = None,
) -> PushedImage:
    """Push an image under `repository:tag` ("library/node", no host) and say what it became.

    `image` overrides keys of the whole config (history, created, rootfs ...). With `index` the tag
    names an index whose first entry is another architecture's image (whose layer is bait: /WRONG)
    and whose second is this one.
    """
    types = MEDIA[media]
    client = _Pusher(server, repository)
    packed = [_pack(layer) for layer in layers]
    for blob, _ in packed:
        client.blob(blob)
    pushed = _push_manifest(client, types, packed, config or {}, architecture, image or {})
    if not index:
        client.manifest(pushed[0], types["manifest"], tag)
        return pushed[1]
    bait = [_pack(tar_of({"WRONG": b"the wrong platform\n"}))]
    client.blob(bait[0][0])
    other, _ = _push_manifest(client, types, bait, {}, OTHER_ARCHITECTURE, {})
    entries = []
    for body, arch in ((other, OTHER_ARCHITECTURE), (pushed[0], architecture)):
        client.manifest(body, types["manifest"], digest(body))
        entries.append(
            {
                **_descriptor(types["manifest"], body),
                "platform": {"architecture": arch, "os": "linux"},
            }
        )
    body = _json({"schemaVersion": 2, "mediaType": types["index"], "manifests": entries})
    client.manifest(body, types["index"], tag)
    done = pushed[1]
    return PushedImage(
        done.manifest, done.config, done.layers, done.diff_ids, done.sizes, digest(body)
    )


def push_manifest(
    server: RegistryServer,
    repository: str,
    tag: str = "latest",
    *,
    config: tuple[str, bytes],
    layers: Sequence[tuple[str, bytes]],
) -> str:
    """Push an OCI manifest of any (media type, bytes): what is no container image. Its digest."""
    client = _Pusher(server, repository)
    for _, blob in (config, *layers):
        client.blob(blob)
    body = _json(
        {
            "schemaVersion": 2,
            "mediaType": MEDIA["oci"]["manifest"],
            "config": _descriptor(*config),
            "layers": [_descriptor(*layer) for layer in layers],
        }
    )
    client.manifest(body, MEDIA["oci"]["manifest"], tag)
    return digest(body)


def _push_manifest(
    client: _Pusher,
    types: Mapping[str, str],
    packed: Sequence[tuple[bytes, str]],
    config: Mapping[str, Any],
    architecture: str,
    image: Mapping[str, Any],
) -> tuple[bytes, PushedImage]:
    diff_ids = [diff_id for _, diff_id in packed]
    config_blob = _json(
        {
            "architecture": architecture,
            "os": "linux",
            "created": "2026-01-01T00:00:00Z",
            "config": dict(config),
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": [
                {"created": "2026-01-01T00:00:00Z", "created_by": f"layer {n}"}
                for n in range(len(packed))
            ],
            **image,
        }
    )
    client.blob(config_blob)
    body = _json(
        {
            "schemaVersion": 2,
            "mediaType": types["manifest"],
            "config": _descriptor(types["config"], config_blob),
            "layers": [_descriptor(types["layer"], blob) for blob, _ in packed],
        }
    )
    return body, PushedImage(
        digest(body),
        digest(config_blob),
        tuple(digest(blob) for blob, _ in packed),
        tuple(diff_ids),
        tuple(len(blob) for blob, _ in packed),
    )


class _Pusher:
    """The distribution API's upload calls, signed in as the server asks."""

    def __init__(self, server: RegistryServer, repository: str) -> None:
        self._base = f"{server.url}/v2/{repository}"
        self._headers: dict[str, str] = {}
        if server.basic:
            self._headers = urllib3.util.make_headers(basic_auth=f"{USER}:{PASSWORD}")
        elif server.tokens:
            token = server.tokens.mint(repository, "pull", "push", lifetime=600)
            self._headers = {"Authorization": f"Bearer {token}"}

    def blob(self, data: bytes) -> None:
        with urllib3.PoolManager() as http:
            if self._call(http, "HEAD", f"/blobs/{digest(data)}", (200, 404)).status == 200:
                return
            location = self._call(http, "POST", "/blobs/uploads/", (202,)).headers["Location"]
            target = f"{location}{'&' if '?' in location else '?'}digest={digest(data)}"
            self._call(http, "PUT", target, (201,), data, "application/octet-stream")

    def manifest(self, body: bytes, media_type: str, reference: str) -> None:
        with urllib3.PoolManager() as http:
            self._call(http, "PUT", f"/manifests/{reference}", (201,), body, media_type)

    def _call(
        self,
        http: urllib3.PoolManager,
        method: str,
        path: str,
        expected: tuple[int, ...],
        body: bytes | None = None,
        content_type: str = "",
    ) -> urllib3.BaseHTTPResponse:
        url = path if path.startswith("http") else self._base + path
        headers = {**self._headers, **({"Content-Type": content_type} if content_type else {})}
        response = http.request(method, url, body=body, headers=headers, retries=False)
        assert response.status in expected, f"{method} {url}: {response.status} {response.data!r}"
        return response


def tar_of(files: Mapping[str, bytes]) -> bytes:
    """A plain tar of regular files, parents first, mode 0755 (a path may end in / for a folder)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name.rstrip("/"))
            entry.mode = 0o755
            entry.mtime = 1_700_000_000
            if name.endswith("/"):
                entry.type = tarfile.DIRTYPE
                archive.addfile(entry)
            else:
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _pack(layer: bytes | Path) -> tuple[bytes, str]:
    """(gzip blob, diff_id) of tar bytes, a tar file or a folder."""
    if isinstance(layer, Path):
        data = _tar_folder(layer) if layer.is_dir() else layer.read_bytes()
    else:
        data = layer
    if data[:2] == b"\x1f\x8b":
        return data, digest(gzip.decompress(data))
    return gzip.compress(data, 1, mtime=0), digest(data)


def _tar_folder(folder: Path) -> bytes:
    command = [
        "tar",
        "--sort=name",
        "--numeric-owner",
        "--xattrs",
        "-C",
        str(folder),
        "-cf",
        "-",
        ".",
    ]
    return subprocess.run(command, check=True, capture_output=True).stdout


def _descriptor(media_type: str, blob: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "size": len(blob), "digest": digest(blob)}


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _bcrypt(password: str) -> str:
    """htpasswd's hash by libcrypt (Python has none, and its crypt module is on its way out)."""
    crypt = ctypes.CDLL("libcrypt.so.1").crypt
    crypt.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
    crypt.restype = ctypes.c_char_p
    hashed = crypt(password.encode(), b"$2b$04$" + b"quaysidetestsaltxxxxxx")
    assert isinstance(hashed, bytes) and hashed.startswith(b"$2b$"), hashed
    return hashed.decode()
