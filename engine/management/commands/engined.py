"""engined: supervises containers, keeps operations moving, reconciles, and serves every stream.

The supervisor waits in a thread of its own (engine.services.work.supervisor); streams run in the
asyncio loop of the main thread. SIGTERM ends it; containers go on.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import signal
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from engine.services.work.containers import record_exit
from engine.services.work.host import host
from engine.services.work.keeper import Keeper
from engine.services.work.reconcile import mend_names, reconcile, tidy
from engine.services.work.supervisor import Supervisor
from engine.streams import hub
from engine.streams.server import serve

logger = logging.getLogger(__name__)

_ROTATE_SECONDS = 5.0
_NAMES_SECONDS = 5.0
_RECONCILE_SECONDS = 60.0
_TIDY_SECONDS = 3600.0


class Command(BaseCommand):
    help = __doc__

    def handle(self, *args: Any, **options: Any) -> None:
        config = settings.ENGINE
        with open(config.run_dir / "engined.lock", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise CommandError(f"another engined runs for {config.home}") from error
            asyncio.run(self._run())

    async def _run(self) -> None:
        config = settings.ENGINE
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        supervisor = Supervisor(config.exits_dir, record_exit, hub.container_changed)
        supervisor.start()
        keeper = Keeper(
            (
                (_ROTATE_SECONDS, host().containers.rotate_logs),
                (_NAMES_SECONDS, mend_names),
                (_RECONCILE_SECONDS, reconcile),
                (_TIDY_SECONDS, tidy),
            ),
            after_loss=reconcile,
        )
        try:
            for line in await loop.run_in_executor(None, reconcile):
                logger.info("reconciled: %s", line)
            keeper.start()
            await serve(config, stop)
        finally:
            if keeper.is_alive():
                keeper.stop()
            supervisor.stop()
