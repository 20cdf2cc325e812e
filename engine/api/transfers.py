"""Images in and out by archives: /images/create, /images/load, /images/get, /commit."""

from __future__ import annotations

from aiohttp import web

from engine.api import pulls
from engine.api.call import Call, Routes
from engine.errors import InvalidInput

routes = Routes()


@routes.post("/images/create")
async def image_create(call: Call) -> web.StreamResponse:
    if call.text("fromImage"):
        return await pulls.pull(call)
    raise InvalidInput("fromImage or fromSrc is missing")
