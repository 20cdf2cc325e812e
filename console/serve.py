"""web: `python -m console.serve`, started as root by script/server.

Binds the listening socket, makes the code reachable for an unprivileged user (console.mounts),
and keeps one process a core running as that user on the one socket. SIGTERM and SIGINT end all;
a process that dies is started again. What a process does is `console.webserver` and
`console.asgi`.
"""

from __future__ import annotations

import argparse
import ctypes
import logging
import os
import pwd
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from console import mounts
from console.home import web_user
from engine.config import EngineConfig
from engine.errors import InvalidInput, QuaysideError

logger = logging.getLogger("console.serve")

REPOSITORY = Path(__file__).resolve().parent.parent
BACKLOG = 1024
PR_SET_PDEATHSIG = 1
# A process that dies at once is started again after this, so that a mistake does not spin.
RESTART_SECONDS = 1.0
# A process says good-bye to its sockets first (console.webserver), hence the patience.
STOP_SECONDS = 8.0


def listen(address: str, port: int) -> socket.socket:
    """A listening TCP socket. Raises InvalidInput naming the setting that is wrong."""
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(where)
    except OSError as error:
        raise InvalidInput(
            f"cannot listen on {address}:{port}: {error.strerror or error}",
            hint="set QUAYSIDE_ADDRESS and QUAYSIDE_PORT to what is free here",
            field="QUAYSIDE_PORT",
        ) from error
    listening.listen(BACKLOG)
    return listening


def needed_trees(config: EngineConfig) -> list[mounts.Tree]:
    """What a web process must reach: the code, the interpreter, the home."""
    code = {REPOSITORY, Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve()}
    outer = [path for path in code if not any(other in path.parents for other in code)]
    return [*map(mounts.Tree, sorted(outer)), mounts.Tree(config.home.resolve(), writable=True)]


class Launcher:
    """The parent: it holds the socket and its children, and does nothing else."""

    def __init__(self, listening: socket.socket, user: pwd.struct_passwd, count: int) -> None:
        self._listening = listening
        self._user = user
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._count = count
        self._stopping = False

    def run(self) -> int:
        """Until a signal says stop. Returns 0."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        for _ in range(self._count):
            self._start()
        while self._children:
            pid, status = os.wait()
            child = self._children.pop(pid, None)
            if child is None:
                continue
            child.returncode = os.waitstatus_to_exitcode(status)
            if not self._stopping:
                logger.warning(
                    "web process %d ended with %d, starting another", pid, child.returncode
                )
                time.sleep(RESTART_SECONDS)
                if not self._stopping:
                    self._start()
        return 0

    def _start(self) -> None:
        # Started unprivileged (docker-compose.yml) it is that user already.
        other = os.geteuid() == 0
        child = subprocess.Popen(
            [sys.executable, "-m", "console.serve", "--inherited", str(self._listening.fileno())],
            cwd=REPOSITORY,
            pass_fds=[self._listening.fileno()],
            user=self._user.pw_uid if other else None,
            group=self._user.pw_gid if other else None,
            extra_groups=[] if other else None,
            umask=0o027,
            env={**_environment(), "HOME": "/", "PYTHONDONTWRITEBYTECODE": "1"},
        )
        self._children[child.pid] = child

    def _stop(self, number: int, frame: object) -> None:
        self._stopping = True
        for child in self._children.values():
            child.terminate()
        signal.signal(signal.SIGALRM, self._kill)
        signal.setitimer(signal.ITIMER_REAL, STOP_SECONDS)

    def _kill(self, number: int, frame: object) -> None:
        for child in self._children.values():
            logger.warning("web process %d does not stop, killing it", child.pid)
            child.kill()


def _environment() -> dict[str, str]:
    """What a web process needs not have it does not get: the administrator's password."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("DJANGO_SUPERUSER_")
    }


def serve_inherited(descriptor: int) -> None:
    """One web process. Ends when its launcher does."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit(1)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "console.settings")
    from console.asgi import application
    from console.consumers.registry import registry
    from console.warm import warm_up
    from console.webserver import WebServer

    warm_up()
    listening = socket.socket(fileno=descriptor)
    WebServer(application, listening, farewell=registry.farewell).run()


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m console.serve", description=__doc__)
    parser.add_argument("--address", default=os.environ.get("QUAYSIDE_ADDRESS", "127.0.0.1"))
    parser.add_argument("--port", type=int, default=int(os.environ.get("QUAYSIDE_PORT", "8000")))
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--check", action="store_true", help="only say whether that is free")
    parser.add_argument("--inherited", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    logging.basicConfig(
        level=logging.INFO, format="{asctime} {levelname:<7} {name}: {message}", style="{"
    )
    if options.inherited is not None:
        serve_inherited(options.inherited)
        return 0
    try:
        config = EngineConfig.from_environ(os.environ)
        user = web_user()
        listening = listen(options.address, options.port)
        if options.check:
            return 0
        mounts.enter(needed_trees(config), user)
        return Launcher(listening, user, options.processes).run()
    except QuaysideError as error:
        parser.exit(1, f"{error.message}{f' ({error.hint})' if error.hint else ''}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
