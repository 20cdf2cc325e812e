"""engined: supervises containers, keeps operations moving, reconciles, and serves every stream.

The supervisor and the keeper wait in threads of their own (engine.services.work); streams and the
Docker API run in processes of their own (engine.services.work.child). SIGTERM ends it all;
containers go on.
"""

from __future__ import annotations

import asyncio
import fcntl
import gc
import logging
import signal
import sys
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from engine.api import server as api_server
from engine.containers.memory import keep_in_memory
from engine.services.work import volumes
from engine.services.work.child import Child
from engine.services.work.exits import record_exit
from engine.services.work.health import Prober
from engine.services.work.host import host
from engine.services.work.keeper import Keeper
from engine.services.work.reconcile import mend_names, reconcile, tidy
from engine.services.work.restarts import Restarter, bring_up
from engine.services.work.starts import start_again
from engine.services.work.supervisor import Supervisor
from engine.streams import hub
from engine.streams import server as streams_server

logger = logging.getLogger(__name__)

_SWITCH_SECONDS = 0.0005
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
            keep_in_memory(config)
            streams = Child.begin(config, streams_server.serve, hub.container_changed)
            api = Child.begin(config, api_server.serve)
            # Whoever records an exit asks for the interpreter some thirty times; beside a reconcile
            # each of them would wait Python's own 5 ms for its turn.
            sys.setswitchinterval(_SWITCH_SECONDS)
            asyncio.run(self._run(streams, api))

    async def _run(self, streams: Child, api: Child) -> None:
        children = (streams, api)
        config = settings.ENGINE
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)

        prober, restarter = Prober(), Restarter(start_again)
        supervisor = Supervisor(config.exits_dir, record_exit, streams.tell, prober.begun)
        prober.start()
        supervisor.start()
        # Without one of these it is no engined: it ends, and supervisord starts it anew.
        for child in children:
            loop.add_reader(child.pidfd, stop.set)
        loop.run_in_executor(None, supervisor.join).add_done_callback(lambda _: stop.set())
        keeper = Keeper(
            (
                (_ROTATE_SECONDS, host().containers.rotate_logs),
                (_NAMES_SECONDS, mend_names),
                (_RECONCILE_SECONDS, reconcile),
                (_RECONCILE_SECONDS, volumes.measure_changed),
                (_TIDY_SECONDS, tidy),
            ),
            after_loss=reconcile,
        )
        try:
            for line in await loop.run_in_executor(None, reconcile):
                logger.info("reconciled: %s", line)
            for line in await loop.run_in_executor(None, bring_up):
                logger.info("%s", line)
            # A full collection would walk all of Django again, and hold everything up meanwhile.
            gc.collect()
            gc.freeze()
            restarter.start()
            keeper.start()
            for child in children:
                child.go()
            await stop.wait()
        finally:
            for child in children:
                child.stop()
            if keeper.is_alive():
                keeper.stop()
            if restarter.is_alive():
                restarter.stop()
            prober.stop()
            supervisor.stop()
