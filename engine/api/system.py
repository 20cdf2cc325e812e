"""_ping, version, auth, and what the whole machine says of itself (info, events, system df)."""

from __future__ import annotations

import os
import platform

from aiohttp import web

from engine.api.call import Call, Routes, reply

routes = Routes()

# Ours has no semantic version of Docker's; the CLI shows it and compares nothing.
VERSION = "0.4.0"
_PING = {
    "Api-Version": "1.47",
    "OSType": "linux",
    "Builder-Version": "1",
    "Docker-Experimental": "false",
    "Swarm": "inactive",
    "Cache-Control": "no-cache, no-store, must-revalidate",
    "Pragma": "no-cache",
}
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@routes.get("/_ping")
async def ping(call: Call) -> web.Response:
    return web.Response(text="OK", headers=_PING)


@routes.head("/_ping")
async def ping_head(call: Call) -> web.Response:
    return web.Response(headers=_PING)


@routes.get("/version")
async def version(call: Call) -> web.Response:
    machine = platform.machine()
    values = {
        "Version": VERSION,
        "ApiVersion": "1.47",
        "MinAPIVersion": "1.24",
        "GitCommit": "",
        "GoVersion": "",
        "Os": "linux",
        "Arch": _ARCHITECTURES.get(machine, machine),
        "KernelVersion": os.uname().release,
        "BuildTime": "",
    }
    details = {key: values[key] for key in ("ApiVersion", "MinAPIVersion", "Os", "Arch")}
    components = [{"Name": "Engine", "Version": VERSION, "Details": details}]
    return reply({**values, "Platform": {"Name": "Quayside"}, "Components": components})
