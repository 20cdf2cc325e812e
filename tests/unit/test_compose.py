"""docker-compose.yml is what docker-compose reads, and web has no privilege in it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    done = subprocess.run(
        ["docker-compose", "config"],
        cwd=ROOT,
        env={**os.environ, "POSTGRES_PASSWORD": "x"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = yaml.safe_load(done.stdout)["services"]
    return found


def test_the_five_services_and_the_preparation_are_there(services: dict[str, Any]) -> None:
    assert set(services) == {"redis", "postgres", "prepare", "web", "worker", "engined"}


def test_web_runs_without_privileges(services: dict[str, Any]) -> None:
    web = services["web"]
    assert web["user"] == "quayside"
    assert web["cap_drop"] == ["ALL"]
    assert not web.get("privileged")
    assert web["command"] == ["python", "-m", "console.serve"]


@pytest.mark.parametrize("name", ["worker", "engined"])
def test_the_engine_s_processes_have_the_host(services: dict[str, Any], name: str) -> None:
    service = services[name]
    assert service["privileged"] is True
    assert service["network_mode"] == "host"
    assert service["pid"] == "host"
    assert any(
        volume.startswith("/var/lib/quayside:/var/lib/quayside:rshared")
        for volume in service["volumes"]
    )


def test_every_setting_of_the_file_is_one_quayside_reads(services: dict[str, Any]) -> None:
    readme = (ROOT / "README.md").read_text()
    for name in ("web", "worker", "engined"):
        for variable in services[name]["environment"]:
            assert f"`{variable}`" in readme, variable


def test_no_password_no_start() -> None:
    environment = {k: v for k, v in os.environ.items() if k != "POSTGRES_PASSWORD"}
    done = subprocess.run(
        ["docker-compose", "config"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "POSTGRES_PASSWORD" in done.stderr
