"""Ends every container of this home and takes away all it has on the machine: processes, mounts,
networks, nft table, cgroups. Files stay; remove the folder afterwards. Asks for --yes.
"""

from __future__ import annotations

import fcntl
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from engine.containers.memory import let_go
from engine.containers.volumes import Volumes
from engine.runtime import cgroups
from engine.runtime.steps import reap_steps
from engine.services.work.host import host


class Command(BaseCommand):
    help = __doc__
    # It must work also where the rest of the site does not.
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--yes", action="store_true", help="really end every container")

    def handle(self, *args: Any, **options: Any) -> None:
        parts = host()
        if not options["yes"]:
            raise CommandError(f"this ends every container of {parts.config.home}: add --yes")
        with open(parts.config.run_dir / "engined.lock", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise CommandError("stop script/server first") from error
            parent = f"/{parts.config.cgroup_parent}"
            cgroups.kill(parent)
            cgroups.wait_empty(parent, 10)
            for uid in parts.containers.list_on_disk():
                parts.containers.remove(uid)
            reap_steps(parts.runtime)
            for _, target in list(parts.snapshots.mounts()):
                parts.snapshots.unmount(target)
            for key in Volumes(parts.config).every():
                Volumes(parts.config).unmount(key)
            parts.network.release_all()
            let_go(parts.config)
            cgroups.remove_tree(parent)
