"""registries.json: Docker's format, for root's eyes only."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from engine.errors import InvalidInput
from engine.registry.credentials import load_credentials


def write(path: Path, auths: object, mode: int = 0o600) -> Path:
    path.write_text(json.dumps({"auths": auths}))
    path.chmod(mode)
    return path


def pair(text: str) -> dict[str, str]:
    return {"auth": base64.b64encode(text.encode()).decode()}


def test_the_registry_s_own_entry_is_found(tmp_path: Path) -> None:
    path = write(tmp_path / "r.json", {"r.example:5000": pair("ann:s3:cret"), "other": pair("b:c")})
    found = load_credentials(path, "r.example:5000")
    assert found is not None
    assert (found.username, found.password) == ("ann", "s3:cret")
    assert load_credentials(path, "elsewhere") is None


def test_the_hub_is_known_by_its_old_name(tmp_path: Path) -> None:
    path = write(tmp_path / "r.json", {"https://index.docker.io/v1/": pair("ann:x")})
    found = load_credentials(path, "docker.io")
    assert found is not None
    assert found.username == "ann"


def test_no_file_is_no_sign_in(tmp_path: Path) -> None:
    assert load_credentials(tmp_path / "none", "docker.io") is None


def test_an_identity_token_needs_no_password(tmp_path: Path) -> None:
    path = write(tmp_path / "r.json", {"r.example": {"identitytoken": "t"}})
    found = load_credentials(path, "r.example")
    assert found is not None
    assert found.identity_token == "t"


@pytest.mark.parametrize("entry", [{}, {"auth": "***"}, pair("nocolon"), "text"])
def test_what_is_no_entry_is_refused(tmp_path: Path, entry: object) -> None:
    with pytest.raises(InvalidInput, match=r"config\.json"):
        load_credentials(write(tmp_path / "r.json", {"r.example": entry}), "r.example")


def test_a_file_others_may_read_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "r.json", {"r.example": pair("a:b")}, 0o644)
    with pytest.raises(InvalidInput, match="read by others"):
        load_credentials(path, "r.example")
