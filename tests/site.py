"""The whole of Quayside as a person starts it: script/server on a home of its own."""

from __future__ import annotations

import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.pools import free_pool

ROOT = Path(__file__).resolve().parents[1]
USERNAME = "admin"
PASSWORD = "tide-and-anchor-7"


def free_port() -> int:
    """One below those the kernel gives to whoever asks for any: it stays free until it is used."""
    while True:
        port = random.randrange(15000, 32000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("", port))
            return port


@dataclass
class Site:
    """A running (or stopped) server. `output` is what the terminal showed so far."""

    home: Path
    port: int
    environment: Mapping[str, str]
    process: subprocess.Popen[str] | None = None
    lines: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def output(self) -> str:
        return "".join(self.lines)

    def start(self, until: str = "Ctrl-C stops Quayside", timeout: float = 120) -> float:
        """Start and wait for a line with `until`; the seconds it took."""
        began = time.monotonic()
        self.lines.clear()
        self.process = subprocess.Popen(
            [str(ROOT / "script" / "server")],
            cwd=ROOT,
            env={**os.environ, **self.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        threading.Thread(target=self._read, args=(self.process,), daemon=True).start()
        self.wait_for(until, timeout)
        return time.monotonic() - began

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout as stream:
            for line in stream:
                self.lines.append(line)

    def wait_for(self, text: str, timeout: float = 120) -> None:
        """Raises AssertionError with everything shown so far."""
        assert self.process is not None
        deadline = time.monotonic() + timeout
        while text not in self.output:
            ended = self.process.poll()
            if ended is not None or time.monotonic() > deadline:
                raise AssertionError(f"no {text!r} (exit {ended}):\n{self.output}\n{self.logs()}")
            time.sleep(0.02)

    def logs(self) -> str:
        """The tail of every log of the home, for a test that failed."""
        return "\n".join(
            f"== {path.name}\n{path.read_text(errors='replace')[-4000:]}"
            for path in sorted((self.home / "logs").glob("*.log"))
        )

    def stop(self) -> None:
        """As Ctrl-C does it: the whole process group gets SIGINT."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGINT)
            self.process.wait(30)
            self.process = None

    def pids(self, program: str) -> list[int]:
        """Of a program of supervisord.conf (web, engined, worker-builds …), its children too."""
        status = self.supervisorctl("pid", program).strip()
        pid = int(status)
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [pid, *(int(child) for child in children)]

    def supervisorctl(self, *words: str) -> str:
        return subprocess.run(
            [
                str(ROOT / ".venv/bin/supervisorctl"),
                *("--serverurl", f"unix://{self.home}/run/supervisor.sock", *words),
            ],
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    def manage(self, *words: str, source: str = "") -> str:
        """manage.py on this home; `source` goes to `shell`'s stdin."""
        return subprocess.run(
            [str(ROOT / ".venv/bin/python"), "manage.py", *words],
            cwd=ROOT,
            env={**os.environ, **self.environment},
            input=source,
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    def destroy(self) -> None:
        """Everything of this home goes: containers, networks, mounts, cgroups, files."""
        self.stop()
        self.manage("wipe_home", "--yes")
        shutil.rmtree(self.home)


@contextmanager
def running_site(**environment: str) -> Iterator[Site]:
    """A site with an administrator (USERNAME, PASSWORD), without the sample unless asked for."""
    home = Path(tempfile.mkdtemp(prefix="qs-"))
    port = free_port()
    settings = {
        "QUAYSIDE_HOME": str(home),
        "QUAYSIDE_PORT": str(port),
        "QUAYSIDE_ADDRESS_POOL": free_pool(),
        "QUAYSIDE_SAMPLE": "0",
        "DJANGO_SUPERUSER_USERNAME": USERNAME,
        "DJANGO_SUPERUSER_PASSWORD": PASSWORD,
        "SECRET_KEY": secrets.token_urlsafe(32),
        **environment,
    }
    site = Site(home, port, settings)
    try:
        site.start()
        yield site
    except BaseException:
        print(site.output, site.logs())  # noqa: T201 - what a failed test needs to be understood
        raise
    finally:
        site.destroy()
