"""docker compose: two services of one file, one found by the other's name, and down again."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.run import Target

_FILE = """
services:
  web:
    image: alpine
    command: httpd -f -p 80 -h /etc
    labels: {tide: high}
    environment: {DEPTH: "7"}
  client:
    image: alpine
    command: sh -c 'until wget -qO- http://web/alpine-release; do sleep 0.1; done; sleep 600'
    depends_on: [web]
    volumes: [kept:/kept]
volumes:
  kept: {}
"""


def _commands() -> list[tuple[str, ...]]:
    """Debian's docker-compose, and the CLI's plugin where there is one."""
    found: list[tuple[str, ...]] = [("docker-compose",)]
    plugins = [
        *Path("/usr/libexec/docker/cli-plugins").glob("docker-compose"),
        *Path("/usr/lib/docker/cli-plugins").glob("docker-compose"),
    ]
    if plugins and shutil.which("docker"):
        found.append(("docker", "compose"))
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    made = tmp_path / "fleet"
    made.mkdir()
    (made / "docker-compose.yml").write_text('version: "3.7"\n' + _FILE)
    yield made


@pytest.mark.parametrize("command", _commands(), ids=" ".join)
def test_two_services(quayside: Target, folder: Path, command: tuple[str, ...]) -> None:
    def run(*words: str) -> str:
        done = subprocess.run(
            words,
            cwd=folder,
            env=quayside.environment(),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    run(*command, "up", "-d")
    try:
        assert run(*command, "exec", "-T", "web", "sh", "-c", "echo $DEPTH") == "7\n"
        seen = run("sh", "-c", "until docker logs fleet_client_1 | grep 3.20; do sleep 0.1; done")
        assert seen == "3.20.3\n"
        shown = run(*command, "ps")
        assert "web" in shown and "client" in shown and "Up" in shown
        assert "3.20.3" in run(*command, "logs", "client")
    finally:
        run(*command, "down", "-v")
    left = run("docker", "ps", "-aq", "--filter", "label=com.docker.compose.project=fleet")
    assert left == ""
    assert "fleet" not in run("docker", "network", "ls") + run("docker", "volume", "ls")
