"""What belongs to other engines: swarm mode (nodes, services, secrets …) and plugins.

Reads answer as a dockerd outside of any swarm does, because clients ask in passing: `docker
inspect NAME` tries every kind of object, docker-py leaves a swarm after each of its tests. What
would start one says that it is not there.
"""

from __future__ import annotations

from aiohttp import web

from engine.api.call import Call, Routes, reply
from engine.errors import Unsupported

routes = Routes()

# moby's words: the CLI looks for the first of these sentences.
_NO_MANAGER = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect'
    " this node to swarm and try again."
)
_NO_MEMBER = "This node is not part of a swarm"


async def no_manager(call: Call) -> web.Response:
    return reply({"message": _NO_MANAGER}, 503)


for noun in ("nodes", "services", "tasks", "secrets", "configs"):
    routes.get(f"/{noun}")(no_manager)
    for verb in (routes.get, routes.post, routes.delete):
        verb(f"/{noun}/{{rest:.+}}")(no_manager)
for address in ("/swarm", "/swarm/unlockkey"):
    routes.get(address)(no_manager)
for address in ("/swarm/update", "/swarm/unlock"):
    routes.post(address)(no_manager)


@routes.post("/swarm/leave")
async def leave(call: Call) -> web.Response:
    return reply({"message": _NO_MEMBER}, 503)


@routes.post("/swarm/init")
async def init(call: Call) -> web.Response:
    raise Unsupported("swarm mode is not supported")


@routes.post("/swarm/join")
async def join(call: Call) -> web.Response:
    raise Unsupported("swarm mode is not supported")


@routes.get("/plugins")
async def plugins(call: Call) -> web.Response:
    return reply([])


@routes.get("/plugins/{name:.+}/json")
async def plugin(call: Call) -> web.Response:
    return reply({"message": f'plugin "{call.path("name")}" not found'}, 404)


async def no_plugins(call: Call) -> web.Response:
    raise Unsupported("plugins are not supported")


for verb in (routes.get, routes.post, routes.delete):
    verb("/plugins/{rest:.+}")(no_plugins)
