"""The Docker Engine API's server: on HOME/run/docker.sock, and on TCP with TLS when set.

Who asks: on the unix socket the peer's uid (SO_PEERCRED), known as local:NAME; over TCP the owner
of the personal token in `X-Quayside-Token` or `Authorization: Bearer`. The namespace is the first
one, or the one `X-Quayside-Team` names.
"""

from __future__ import annotations

import asyncio
import gc
import grp
import hashlib
import logging
import os
import pwd
import re
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web
from django.contrib.auth import get_user_model
from django.db import DatabaseError
from django.db.models import Q
from django.utils import timezone

from engine.api import (
    archive,
    attach,
    bounds,
    build,
    containers,
    create,
    df,
    events,
    exec,
    images,
    info,
    inspect,
    listing,
    logs,
    networks,
    parameters,
    pulls,
    registries,
    swarm,
    system,
    transfers,
    usage,
    volumes,
    wait,
)
from engine.api.call import Call, Handler, Routes
from engine.api.changes import changes
from engine.api.errors import answer, answer_error
from engine.api.tls import TlsProtocol
from engine.config import EngineConfig
from engine.errors import EngineError, InvalidInput, PolicyDenied, QuaysideError
from engine.models import ApiToken, Namespace
from engine.services.orm import orm

logger = logging.getLogger(__name__)

API_VERSION = (1, 47)
MIN_VERSION = (1, 24)
MAX_HEADER = 64 * 1024
_VERSION = re.compile(r"/v(\d+)\.(\d+)(/.*)")
_UCRED = struct.Struct("3i")
_GROUP = "QUAYSIDE_SOCKET_GROUP"
# Modules that add a noun append their table here.
TABLES: tuple[Routes, ...] = (
    system.routes,
    archive.routes,
    attach.routes,
    build.routes,
    exec.routes,
    logs.routes,
    images.routes,
    pulls.routes,
    transfers.routes,
    registries.routes,
    df.routes,
    containers.routes,
    create.routes,
    inspect.routes,
    listing.routes,
    wait.routes,
    volumes.routes,
    networks.routes,
    events.routes,
    usage.routes,
    info.routes,
    swarm.routes,
)


def socket_path(config: EngineConfig) -> Path:
    return config.run_dir / "docker.sock"


async def serve(config: EngineConfig, stop: asyncio.Event) -> None:
    """Until `stop`. Raises EngineError when TLS is set up wrongly."""
    # A list of a thousand rows is a hundred thousand objects, and no cycle in them.
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)
    bell = changes.listen(config)
    runner = web.AppRunner(
        application(config),
        handle_signals=False,
        access_log=None,
        shutdown_timeout=2.0,
        max_line_size=MAX_HEADER,
        max_field_size=MAX_HEADER,
        auto_decompress=False,
        tcp_keepalive=True,
        keepalive_timeout=bounds.IDLE_SECONDS,
        # A client that goes ends what was done for it alone: a wait, a follower.
        handler_cancellation=True,
    )
    await runner.setup()
    assert runner.server is not None
    door = bounds.Door(runner.server, bounds.raise_files())
    loop = asyncio.get_running_loop()
    path = socket_path(config)
    servers: list[asyncio.Server] = []
    try:
        servers.append(await loop.create_unix_server(door, sock=_listen(path), backlog=1024))
        address = os.environ.get("QUAYSIDE_API_ADDRESS", "")
        if address:
            host, port, context = _tls(address)
            servers.append(
                await loop.create_server(
                    lambda: TlsProtocol(context, door), host, port, backlog=1024
                )
            )
        await stop.wait()
    finally:
        path.unlink(missing_ok=True)
        for server in servers:
            server.close()
        await runner.cleanup()
        bell.close()


def application(config: EngineConfig) -> web.Application:
    """All tables, each address with and without a version in front."""

    @web.middleware
    async def errors(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        try:
            return await handler(request)
        except QuaysideError as error:
            if isinstance(error, EngineError):
                logger.exception("%s %s", request.method, request.path)
            return answer_error(error)
        except web.HTTPNotFound:
            return answer(404, "page not found")
        except web.HTTPMethodNotAllowed:
            return answer(405, f"{request.method} is not supported on {request.path}")
        except web.HTTPException:
            raise
        except (ConnectionError, asyncio.CancelledError):
            raise
        except DatabaseError as error:
            logger.exception("%s %s", request.method, request.path)
            return answer(500, f"the database does not answer: {error}")
        except Exception as error:
            logger.exception("%s %s", request.method, request.path)
            return answer(500, f"{type(error).__name__}: {error}")

    app = web.Application(middlewares=[errors], client_max_size=0)
    for table in TABLES:
        for method, path, handler in table.table:
            bound = _bound(config, handler, method, path)
            app.router.add_route(method, path, bound)
            app.router.add_route(method, r"/v{version:\d+\.\d+}" + path, bound)
    return app


def _bound(
    config: EngineConfig, handler: Handler, method: str, path: str
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def call(request: web.Request) -> web.StreamResponse:
        # Who is not let in hears that, and not that a version is too new for us.
        namespace, actor = await _caller(request)
        version = _version(request.match_info.get("version"))
        asked = Call(request, config, namespace, actor, version)
        parameters.refuse(method, path, asked)
        return await handler(asked)

    return call


def _version(text: str | None) -> tuple[int, int]:
    if text is None:
        return API_VERSION
    major, minor = map(int, text.split("."))
    if (major, minor) > API_VERSION:
        raise InvalidInput(
            f"client version {text} is too new. Maximum supported API version is "
            f"{API_VERSION[0]}.{API_VERSION[1]}"
        )
    if (major, minor) < MIN_VERSION:
        raise InvalidInput(
            f"client version {text} is too old. Minimum supported API version is "
            f"{MIN_VERSION[0]}.{MIN_VERSION[1]}, please upgrade your client to a newer version"
        )
    return major, minor


async def _caller(request: web.Request) -> tuple[Namespace, str]:
    """Raises PolicyDenied."""
    transport = request.transport
    connection = transport.get_extra_info("socket") if transport else None
    if connection is not None and connection.family == socket.AF_UNIX:
        _, uid, _ = _UCRED.unpack(
            connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        )
        actor = f"local:{_user_name(uid)}"
    else:
        actor = await orm(_token_owner, _token(request))
    return await _namespace_of(request.headers.get("X-Quayside-Team", "")), actor


# A docker command asks four times within a moment, whose team does not change in that.
_NAMESPACE_SECONDS = 1.0
_namespaces: dict[str, tuple[float, Namespace]] = {}


async def _namespace_of(name: str) -> Namespace:
    now = asyncio.get_running_loop().time()
    until, known = _namespaces.get(name, (0.0, None))
    if known is not None and now < until:
        return known
    found = await orm(_namespace, name)
    if len(_namespaces) > 1000:
        _namespaces.clear()
    _namespaces[name] = (now + _NAMESPACE_SECONDS, found)
    return found


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _token(request: web.Request) -> str:
    kind, _, value = request.headers.get("Authorization", "").partition(" ")
    return request.headers.get("X-Quayside-Token") or (value if kind.lower() == "bearer" else "")


def _token_owner(token: str) -> str:
    now = timezone.now()
    digest = hashlib.sha256(token.encode()).hexdigest()
    found = (
        ApiToken.objects.filter(digest=digest)
        .filter(Q(expires_at=None) | Q(expires_at__gt=now))
        .first()
    )
    user = get_user_model().objects.filter(pk=found.user_id).first() if found else None
    if found is None or user is None or not user.is_active or not user.is_superuser:
        raise PolicyDenied(
            "authorization failed: no valid token",
            hint="put an administrator's token into HttpHeaders of the docker CLI's config.json",
        )
    ApiToken.objects.filter(pk=found.pk).update(last_used_at=now)
    return f"user:{user.pk}"


def _namespace(name: str) -> Namespace:
    found = Namespace.objects.order_by("pk")
    row = found.filter(name=name).first() if name else found.first()
    if row is None:
        raise InvalidInput(
            f"no such team: {name}" if name else "there is no team yet",
            hint="make one on the site first",
        )
    return row


def _listen(path: Path) -> socket.socket:
    """Root's, and of the group QUAYSIDE_SOCKET_GROUP (`docker` where there is one): who may use it
    is as good as root on this machine, as with Docker. Raises EngineError for no group."""
    group = _group()
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(str(aside))
    os.chown(aside, 0, group)
    aside.chmod(0o660)
    listening.listen(1024)
    aside.rename(path)
    return listening


def _group() -> int:
    name = os.environ.get(_GROUP, "")
    try:
        return grp.getgrnam(name or "docker").gr_gid
    except KeyError as error:
        if name:
            raise EngineError(f"there is no group {name} ({_GROUP})") from error
        return 0


def _tls(address: str) -> tuple[str, int, ssl.SSLContext]:
    host, _, port = address.rpartition(":")
    certificate, key = (
        os.environ.get(name, "") for name in ("QUAYSIDE_API_TLS_CERT", "QUAYSIDE_API_TLS_KEY")
    )
    if not (port.isdecimal() and certificate and key):
        raise EngineError(
            f"QUAYSIDE_API_ADDRESS={address} needs an address and a port, and TLS",
            hint="write it like 0.0.0.0:2376; set QUAYSIDE_API_TLS_CERT and QUAYSIDE_API_TLS_KEY",
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise EngineError(f"cannot read {certificate} and {key}: {error}") from error
    return host.strip("[]"), int(port), context
