"""Waits until the site and the Docker API answer, says where they are, and prepares a new home.

On a home without people it makes the administrator from DJANGO_SUPERUSER_USERNAME and
DJANGO_SUPERUSER_PASSWORD, or prints a set-up code; on its first start it builds and runs the
sample (QUAYSIDE_SAMPLE=0 leaves it out).
"""

from __future__ import annotations

import os
import socket
import time
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from console.models import Team, User
from console.setup_code import code_make, setup_is_open
from engine.errors import QuaysideError
from engine.models import Build, Container, Namespace, Operation
from engine.services import containers as service
from engine.services import sample
from engine.services.namespaces import namespace_create

TEAM = "team"


class Command(BaseCommand):
    help = __doc__

    def handle(self, *args: Any, **options: Any) -> None:
        # A start that got no further than here leaves the home new for the next one.
        address = self._wait()
        new_home = not Namespace.objects.exists()
        namespace = namespace_create(TEAM)
        Team.objects.get_or_create(namespace=namespace, defaults={"slug": TEAM, "name": "Team"})
        self.stdout.write(f"\n  Quayside answers at {address}\n")
        self._docker()
        if setup_is_open():
            self._administrator(address)
        self.stdout.write("  Ctrl-C stops Quayside; containers go on running.\n\n")
        self.stdout.flush()
        if new_home and os.environ.get("QUAYSIDE_SAMPLE", "1") != "0":
            try:
                self._sample(namespace)
            except (QuaysideError, OSError) as error:
                # The site is of use without it.
                self.stderr.write(f"  The sample is left out: {error}\n")

    def _wait(self) -> str:
        """The address, once the site answers there; a minute is enough for any machine."""
        host = settings.QUAYSIDE_ADDRESS
        local = "127.0.0.1" if host == "0.0.0.0" else host
        deadline = time.monotonic() + 60
        while True:
            try:
                with urlopen(f"http://{local}:{settings.QUAYSIDE_PORT}/healthz", timeout=5):
                    return f"http://{local}:{settings.QUAYSIDE_PORT}/"
            except (URLError, OSError) as error:
                if time.monotonic() > deadline:
                    log = settings.ENGINE.home / "logs" / "web.log"
                    last = log.read_text(errors="replace").splitlines()[-3:] if log.exists() else []
                    raise CommandError(
                        "\n  ".join([f"the site does not answer; {log} ends with:", *last])
                    ) from error
                time.sleep(0.05)

    def _docker(self) -> None:
        """Where a docker command line finds it; who may not open the socket sees it there all the
        same. The site is of use without it."""
        path = settings.ENGINE.run_dir / "docker.sock"
        deadline = time.monotonic() + 15
        while True:
            try:
                with socket.socket(socket.AF_UNIX) as probe:
                    probe.connect(str(path))
                break
            except PermissionError:
                break
            except OSError:
                if time.monotonic() > deadline:
                    log = settings.ENGINE.home / "logs" / "engined.log"
                    self.stderr.write(f"  The Docker API does not answer yet; {log} says why.\n")
                    return
                time.sleep(0.05)
        self.stdout.write(f"  The docker command line: export DOCKER_HOST=unix://{path}\n")

    def _administrator(self, address: str) -> None:
        name = os.environ.get("DJANGO_SUPERUSER_USERNAME", "")
        password = os.environ.get("DJANGO_SUPERUSER_PASSWORD", "")
        if name and password:
            User.objects.create_superuser(name, password=password)
            self.stdout.write(f"  Sign in as {name}.\n")
            return
        self.stdout.write(f"  Make the first administrator at {address}setup/\n")
        self.stdout.write(f"\n      set-up code  {code_make()}\n\n")
        self.stdout.write("  It works once, for 30 minutes and five tries.\n")

    def _sample(self, namespace: Namespace) -> None:
        self.stdout.write("  Building the sample …\n")
        self.stdout.flush()
        for build in (sample.sample_base, sample.sample_build):
            if not self._built(build(namespace)):
                return
        for port in (sample.PORT, 0):
            container = sample.sample_run(namespace, port)
            if self._started(container):
                published = container.ports.get().published_port
                self.stdout.write(f"  The sample runs at http://127.0.0.1:{published}/\n")
                return
            if port:
                # It is taken; this one goes out of the way of the next, whose name it has.
                service.container_rename(container, f"{sample.NAME}-{port}", sample.ACTOR)
                service.container_remove(container, sample.ACTOR)

    def _built(self, build: Build) -> bool:
        while build.is_open:
            time.sleep(0.1)
            build.refresh_from_db()
        if build.state != Build.State.DONE:
            reason = (build.error or {}).get("message", build.state)
            self.stderr.write(f"  The sample's build #{build.number} failed: {reason}\n")
        return build.state == Build.State.DONE

    def _started(self, container: Container) -> bool:
        while True:
            operation = Operation.objects.filter(
                kind=Operation.Kind.CONTAINER_START, target=str(container.pk)
            ).latest("created_at")
            if not operation.is_open:
                return operation.state == Operation.State.DONE
            time.sleep(0.1)
