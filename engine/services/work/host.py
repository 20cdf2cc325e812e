"""This process's one set of engine parts, built from the configuration at first use."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from django.conf import settings

from engine.config import EngineConfig
from engine.containers.lifecycle import Containers
from engine.containers.running import Running
from engine.content.store import ContentStore
from engine.network.manager import NetworkManager
from engine.runtime.oci_runtime import OCIRuntime
from engine.snapshots.overlay import OverlaySnapshotter


@dataclass(frozen=True, slots=True)
class Host:
    config: EngineConfig
    content: ContentStore
    snapshots: OverlaySnapshotter
    runtime: OCIRuntime
    network: NetworkManager
    containers: Containers
    running: Running


@cache
def host() -> Host:
    config: EngineConfig = settings.ENGINE
    snapshots = OverlaySnapshotter(config.snapshots_dir)
    runtime = OCIRuntime(config.run_dir / "runtime", config.cgroup_parent)
    network = NetworkManager(config)
    return Host(
        config=config,
        content=ContentStore(config.content_dir),
        snapshots=snapshots,
        runtime=runtime,
        network=network,
        containers=Containers(config, snapshots, runtime, network),
        running=Running(config, runtime),
    )
