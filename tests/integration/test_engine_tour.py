"""The study notes' tour by the engine's calls, without a browser: a `node` image from a registry
that stands for docker.io, built upon, run, looked at, changed, rebuilt, stopped and started."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings

from engine.config import EngineConfig
from engine.containers.attach import Attach
from engine.containers.layout import ContainerDir
from engine.containers.logs import LogReader, decode_tty
from engine.models import Build, Container, Namespace
from engine.network.spec import PortBinding
from engine.services import builds, containers, images
from tests.node_image import CONFIG, node_tar
from tests.registry import push_image, running_registry
from tests.services_home import (
    ACTOR,
    answer,
    built,
    done,
    ended,
    events,
    eventually,
    log_from,
    run,
    running_home,
    step_states,
    upload,
    work,
)
from tests.site import free_port

pytestmark = pytest.mark.django_db(transaction=True)
APP = Path(__file__).resolve().parents[1] / "data" / "app"
STEPS = [
    "FROM node",
    "WORKDIR /app",
    "COPY package.json /app",
    "COPY greeting /app/greeting",
    "RUN npm install",
    "COPY . /app",
    "EXPOSE 80",
    'CMD ["node","server.js"]',
]


@pytest.fixture(scope="module")
def services_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineConfig]:
    """Here docker.io has a real `node`."""
    folder = tmp_path_factory.mktemp("tour")
    with running_registry(folder) as registry:
        push_image(registry, "library/node", layers=[node_tar()], config=CONFIG)
        with running_home(folder / "home", mirrors={"docker.io": (registry.url,)}) as config:
            yield config


def test_build_run_change_rebuild_and_work_in_it(namespace: Namespace, tmp_path: Path) -> None:
    source = Path(shutil.copytree(APP, tmp_path / "app"))
    port, other_port = free_port(), free_port()

    # docker build: FROM pulls what is not here, and every step is built
    first = built(namespace, tag="notes", upload=upload(namespace, source))
    states = step_states(first)
    assert list(states) == STEPS
    assert states["FROM node"] == states["RUN npm install"] == "built"
    assert events(first, "pull"), "the pull shows in the build's log"
    assert images.find_image(namespace, "notes:latest") == first.image
    assert images.find_image(namespace, "node") != first.image

    # docker run -p, and docker logs by offset
    web = run(
        namespace,
        image="notes",
        name="web",
        ports=(PortBinding(80, "tcp", "127.0.0.1", port),),
    )
    eventually(lambda: answer(port) == "Hello, quay\n", 20)
    eventually(lambda: "GET /" in log_from(web, 0)[0])
    text, offset = log_from(web, 0)
    assert text.startswith("listening on 80\n")
    assert answer(port) == "Hello, quay\n"
    eventually(lambda: log_from(web, offset)[0] == "GET /\n")

    # A changed source shows neither in what runs nor after its restart
    server = source / "server.js"
    server.write_text(server.read_text().replace("quay", "harbour"))
    assert answer(port) == "Hello, quay\n"

    # The rebuild takes npm install from the cache, the copy not, and says which file it was
    second, operation = builds.build_again(first, ACTOR, upload=upload(namespace, source))
    done(operation)
    second.refresh_from_db()
    assert step_states(second) == {
        **dict.fromkeys(STEPS[:5], "cached"),
        **dict.fromkeys(STEPS[5:], "built"),
    }
    assert _reason(second, "COPY . /app")["why"] == "files"
    assert _reason(second, "COPY . /app")["files"] == [{"path": "server.js", "change": "changed"}]
    assert second.image != first.image
    assert answer(port) == "Hello, quay\n"

    # A second container from the new image, beside the first
    run(
        namespace,
        image="notes",
        name="web2",
        ports=(PortBinding(80, "tcp", "127.0.0.1", other_port),),
    )
    eventually(lambda: answer(other_port) == "Hello, harbour\n", 20)
    assert answer(port) == "Hello, quay\n"

    # docker stop, ps -a, start: the same container, its log goes on
    done(containers.container_stop(web, ACTOR))
    web.refresh_from_db()
    assert (web.state, web.exit_code) == (Container.State.EXITED, 0)
    assert answer(port) == ""
    offset = log_from(web, 0)[1]
    done(containers.container_start(web, ACTOR))
    eventually(lambda: answer(port) == "Hello, quay\n", 20)
    eventually(lambda: log_from(web, offset)[0].startswith("listening on 80\n"))
    web.refresh_from_db()
    assert web.generation == 2

    # Without a change everything is cached, and it is the same image
    again = built(namespace, tag="notes", upload=upload(namespace, source))
    assert set(step_states(again).values()) == {"cached"}
    assert again.image == second.image


def test_node_with_a_terminal(namespace: Namespace) -> None:
    """docker run -it node; leave it; docker start -a -i."""
    done(images.image_pull(namespace, "node", ACTOR))
    request = containers.ContainerRequest(image="node", name="repl", tty=True, open_stdin=True)
    repl, operation = containers.container_create(namespace, request, ACTOR)
    done(operation)

    done(containers.container_start(repl, ACTOR, size=(100, 30)))
    _shows(repl, r"^> ")
    _type(repl, "process.stdout.columns\n")
    _shows(repl, r"^100$")
    _type(repl, "1+1\n")
    _shows(repl, r"^2$")
    _type(repl, "process.exitCode = 7\n")
    _type(repl, ".exit\n")
    assert ended(repl) == 7

    done(containers.container_start(repl, ACTOR, size=(80, 24)))
    _type(repl, "'한' + '글'\n")
    _shows(repl, r"^'한글'$")
    _type(repl, ".exit\n")
    assert ended(repl) == 0
    repl.refresh_from_db()
    assert repl.generation == 2
    assert "'한글'" in _screen(repl)
    assert work(containers.container_remove(repl, ACTOR)).error is None


def _reason(build: Build, text: str) -> dict[str, object]:
    (plan,) = events(build, "plan")
    n = next(step["n"] for step in plan["steps"] if step["text"] == text)
    reasons = (event["reason"] for event in events(build, "step") if event["n"] == n)
    found: dict[str, object] = next(reasons)
    return found


def _type(container: Container, text: str) -> None:
    """Through conmon's attach socket, as a terminal does it."""
    with Attach.connect(ContainerDir(settings.ENGINE, container.uid).bundle) as attached:
        attached.setblocking(True)
        attached.send(text.encode())


def _screen(container: Container) -> str:
    """All the terminal was sent, without its escapes, a line of output each."""
    with LogReader(ContainerDir(settings.ENGINE, container.uid).log) as reader:
        data, _ = decode_tty(reader.read(0, 1 << 20).data)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", data.decode()).replace("\r", "\n")


def _shows(container: Container, pattern: str) -> None:
    eventually(lambda: re.search(pattern, _screen(container), re.MULTILINE) is not None, 20)
