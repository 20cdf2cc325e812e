"""POST /auth, /distribution/NAME/json and /images/search: what is asked of registries."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from engine.api.call import Call, Routes, reply
from engine.api.errors import answer, kind_of, message_of, status_of
from engine.api.registry_words import credentials_of, pull_error, sign_in_of
from engine.errors import (
    InvalidInput,
    QuaysideError,
    RegistryUnauthorized,
    Unsupported,
)
from engine.oci.platform import Platform
from engine.services import registries
from engine.services.orm import orm

routes = Routes()


@routes.post("/auth")
async def auth(call: Call) -> web.Response:
    """`docker login`: whether the sign-in holds. Nothing of it is kept here."""
    body = await call.json()
    credentials = credentials_of(body)
    if credentials is None:
        raise InvalidInput("no user name, and no identity token")
    address = body.get("serveraddress") or ""
    if not isinstance(address, str):
        raise InvalidInput("the registry's address must be text")
    try:
        await orm(registries.sign_in, call.config, address, credentials)
    except QuaysideError as error:
        if issubclass(kind_of(error), RegistryUnauthorized):
            said = error.context.get("said") or "incorrect username or password"
            return answer(401, f"unauthorized: {said}")
        return answer(status_of(error), message_of(error))
    return reply({"IdentityToken": "", "Status": "Login Succeeded"})


@routes.get("/distribution/{name:.+}/json")
async def distribution(call: Call) -> web.Response:
    name = call.path("name")
    credentials = sign_in_of(call.request.headers.get("X-Registry-Auth", ""))
    try:
        found = await orm(registries.distribution, call.config, name, credentials)
    except QuaysideError as error:
        status, message = pull_error(name, error)
        return answer(status, message)
    top = found.descriptor
    return reply(
        {
            "Descriptor": {"mediaType": top.media_type, "digest": top.digest, "size": top.size},
            "Platforms": [_platform(platform) for platform in found.platforms],
        }
    )


def _platform(platform: Platform) -> dict[str, Any]:
    return platform.to_dict()


@routes.get("/images/search")
async def search(call: Call) -> web.Response:
    raise Unsupported(
        "searching is not supported: registries have no search of their own",
        hint="look on the registry's site, then docker pull the name",
    )
