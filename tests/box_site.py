"""A running site with one busybox image, `box`, for tests of what goes through all processes.

`call` runs Python in a process that has the site's own Django; it stays up, so that a call takes
milliseconds.
"""

from __future__ import annotations

import json
import os
import subprocess
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.site import ROOT, Site, running_site

_HELPER = """
import json, sys, traceback
sys.path.insert(0, ".")
import django
django.setup()
scope = {}
for line in sys.stdin:
    try:
        scope["result"] = None
        exec(json.loads(line), scope)
        answer = {"result": scope["result"]}
    except Exception:
        answer = {"error": traceback.format_exc()}
    print(json.dumps(answer), flush=True)
"""

_PREPARE = """
import time
from django.utils import timezone
from console.models import *
from engine.models import *
from engine.network.spec import PortBinding
from engine.services.containers import *
from engine.services.terminals import terminal_open
from engine.services.work.host import host
from tests.rootfs import make_rootfs

def done(operation):
    while operation.is_open:
        time.sleep(0.02)
        operation.refresh_from_db()
    assert operation.state == "done", operation.error

digest = "sha256:" + "2" * 64
host().snapshots.prepare("base", None)
make_rootfs(host().snapshots.upper("base"))
host().snapshots.commit("base", digest)
namespace = Namespace.objects.get(name="team")
image = Image.objects.create(
    namespace=namespace, digest="sha256:" + "1" * 64, manifest_digest="sha256:" + "3" * 64, size=1,
    architecture="amd64", config={"config": {"Env": ["PATH=/bin:/usr/bin"]}},
    layers=[{"digest": digest, "diff_id": digest, "size": 1, "media_type": ""}],
    created_at=timezone.now(),
)
Tag.objects.create(
    namespace=namespace, image=image, repository="docker.io/library/box", tag="latest"
)
user = User.objects.get()
"""


@dataclass
class Box:
    """A container of the site."""

    uid: str
    name: str
    pk: int


class BoxSite:
    def __init__(self, site: Site) -> None:
        self.site = site
        self.url = site.url
        self._helper = subprocess.Popen(
            [str(ROOT / ".venv/bin/python"), "-c", _HELPER],
            cwd=ROOT,
            env={**os.environ, **site.environment, "DJANGO_SETTINGS_MODULE": "console.settings"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.call(_PREPARE)

    def call(self, source: str, **values: Any) -> Any:
        """Run `source` with `values` set; what it leaves in `result` (JSON)."""
        assert self._helper.stdin is not None and self._helper.stdout is not None
        text = "".join(f"{name} = {value!r}\n" for name, value in values.items())
        self._helper.stdin.write(json.dumps(text + textwrap.dedent(source)) + "\n")
        self._helper.stdin.flush()
        answer = json.loads(self._helper.stdout.readline())
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def run(self, script: str, **settings: Any) -> Box:
        """A container that runs `script` in sh, started."""
        return self.command("sh", "-c", script, **settings)

    def command(self, *command: str, start: bool = True, **settings: Any) -> Box:
        made = self.call(
            """
            make = container_run if start else container_create
            made, operation = make(
                namespace, ContainerRequest(image="box", command=command, **settings), "user:1"
            )
            done(operation)
            result = {"uid": made.uid, "name": made.name, "pk": made.pk}
            """,
            command=command,
            start=start,
            settings=settings,
        )
        return Box(**made)

    def operate(self, box: Box, verb: str, **more: Any) -> None:
        """`verb`: start, stop, kill, restart, remove."""
        self.call(
            """
            made = Container.objects.get(pk=pk)
            done(globals()[f"container_{verb}"](made, "user:1", **more))
            """,
            pk=box.pk,
            verb=verb,
            more=more,
        )

    def terminal(self, box: Box, *argv: str, kind: str = "exec", tty: bool | None = None) -> str:
        """A terminal session of the administrator's."""
        found: str = self.call(
            """
            made = terminal_open(
                Container.objects.get(pk=pk), kind=kind, owner_id=user.pk, argv=argv, tty=tty
            )
            result = str(made.pk)
            """,
            pk=box.pk,
            kind=kind,
            argv=argv,
            tty=tty,
        )
        return found

    def remove_all(self) -> None:
        self.call(
            """
            for made in Container.objects.all():
                done(container_remove(made, "user:1", force=True))
            """
        )

    def close(self) -> None:
        assert self._helper.stdin is not None and self._helper.stdout is not None
        self._helper.stdin.close()
        self._helper.wait(10)
        self._helper.stdout.close()


@pytest.fixture(scope="session")
def running_box_site() -> Iterator[BoxSite]:
    """One for the whole run."""
    with running_site(QUAYSIDE_INSECURE_REGISTRIES="127.0.0.0/8") as site:
        made = BoxSite(site)
        try:
            yield made
        finally:
            made.close()


@pytest.fixture
def box_site(running_box_site: BoxSite) -> Iterator[BoxSite]:
    """Without containers, at the beginning and at the end."""
    yield running_box_site
    running_box_site.remove_all()
