"""What a container uses and what runs in it: GET stats and top.

Samples are taken where they are asked for, once a second and only while somebody looks.
"""

from __future__ import annotations

import asyncio
import json
from datetime import datetime
from typing import Any

from aiohttp import web

from engine.api.call import Call, Routes, reply
from engine.api.containers import find
from engine.api.happenings import happened
from engine.api.words import ZERO, timestamp
from engine.containers.stats import BlockIO, Cpu, Sample, sample
from engine.containers.top import DEFAULT_ARGUMENTS, Top, top
from engine.errors import Conflict, WrongState
from engine.models import Container
from engine.runtime import cgroups
from engine.services.orm import orm
from engine.services.work.host import host

routes = Routes()
JSON = dict[str, Any]

_SECONDS = 1.0
_BLOCK_KINDS = (
    *("io_service_bytes_recursive", "io_serviced_recursive", "io_queue_recursive"),
    *("io_service_time_recursive", "io_wait_time_recursive", "io_merged_recursive"),
    *("io_time_recursive", "sectors_recursive"),
)


@routes.get("/containers/{id}/stats")
async def stats(call: Call) -> web.StreamResponse:
    """`stream` (the default): a line a second for as long as there is a container. Without it one
    reading, with the second before it unless `one-shot`."""
    container = await find(call)
    before: Sample | None = None
    if not call.flag("stream", True):
        now = await asyncio.to_thread(_sample, container)
        if now is not None and not call.flag("one-shot"):
            await asyncio.sleep(_SECONDS)
            before, now = now, await asyncio.to_thread(_sample, container)
        return reply(shape(container, now, before))
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(call.request)
    transport = call.request.transport
    found: Container | None = container
    while found is not None and transport is not None and not transport.is_closing():
        now = await asyncio.to_thread(_sample, found)
        line = json.dumps(shape(found, now, before), separators=(",", ":"))
        await response.write(line.encode() + b"\n")
        before = now
        await asyncio.sleep(_SECONDS)
        found = await orm(Container.objects.filter(pk=container.pk).first)
    await response.write_eof()
    return response


def _sample(container: Container) -> Sample | None:
    """None where it does not run."""
    if not container.is_running:
        return None
    try:
        return sample(host().runtime.cgroup(container.uid), container.pid)
    except WrongState:
        return None


def shape(container: Container, now: Sample | None, before: Sample | None) -> JSON:
    """Docker's StatsJSON; `before` is the reading that came before, if any."""
    found: JSON = {
        "name": f"/{container.name}",
        "id": container.uid,
        "read": _at(now),
        "preread": _at(before),
        "pids_stats": {},
        "blkio_stats": dict.fromkeys(_BLOCK_KINDS),
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": _cpu(now.cpu if now else None),
        "precpu_stats": _cpu(before.cpu if before else None),
        "memory_stats": {},
    }
    if now is None:
        return found
    found["pids_stats"] = {"current": now.pids}
    if now.pids_limit is not None:
        found["pids_stats"]["limit"] = now.pids_limit
    on_v1 = "blkio" in cgroups.hierarchies().controllers
    blocks: JSON = {kind: [] if on_v1 else None for kind in _BLOCK_KINDS}
    blocks["io_service_bytes_recursive"] = [_block(one) for one in now.bytes]
    blocks["io_serviced_recursive"] = [_block(one) for one in now.operations]
    found["blkio_stats"] = blocks
    memory: JSON = {"usage": now.memory.usage}
    if now.memory.max_usage:
        memory["max_usage"] = now.memory.max_usage
    if now.memory.failures:
        memory["failcnt"] = now.memory.failures
    found["memory_stats"] = {
        **memory,
        "stats": dict(now.memory.details),
        "limit": now.memory.limit,
    }
    if now.networks:
        found["networks"] = {name: dict(counts) for name, counts in now.networks.items()}
    return found


def _at(sample: Sample | None) -> str:
    moment: datetime | None = sample.read_at if sample else None
    return timestamp(moment) if moment else ZERO


def _cpu(cpu: Cpu | None) -> JSON:
    throttling = {
        "periods": cpu.periods if cpu else 0,
        "throttled_periods": cpu.throttled_periods if cpu else 0,
        "throttled_time": cpu.throttled if cpu else 0,
    }
    usage: JSON = {
        "total_usage": cpu.total if cpu else 0,
        "usage_in_kernelmode": cpu.kernel if cpu else 0,
        "usage_in_usermode": cpu.user if cpu else 0,
    }
    if cpu is None:
        return {"cpu_usage": usage, "throttling_data": throttling}
    if cpu.per_cpu:
        usage["percpu_usage"] = list(cpu.per_cpu)
    return {
        "cpu_usage": usage,
        "system_cpu_usage": cpu.system,
        "online_cpus": cpu.online,
        "throttling_data": throttling,
    }


def _block(one: BlockIO) -> JSON:
    return {"major": one.major, "minor": one.minor, "op": one.operation, "value": one.value}


@routes.get("/containers/{id}/top")
async def processes(call: Call) -> web.Response:
    container = await find(call)
    if container.state == Container.State.RESTARTING:
        raise Conflict(
            f"Container {container.uid} is restarting, wait until the container is running"
        )
    if not container.is_running:
        raise Conflict(f"Container {container.uid} is not running")
    arguments = call.text("ps_args") or DEFAULT_ARGUMENTS
    found = await asyncio.to_thread(_top, container.uid, arguments)
    happened(container, "top")
    return reply({"Titles": found.titles, "Processes": found.processes})


def _top(uid: str, arguments: str) -> Top:
    return top(cgroups.pids(host().runtime.cgroup(uid)), arguments)
