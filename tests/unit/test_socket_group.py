"""The group of the Docker API's socket, where it cannot be had."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.api.server import _listen
from engine.errors import EngineError


def test_a_group_that_is_not_there_is_said_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUAYSIDE_SOCKET_GROUP", "no-such-group")
    with pytest.raises(EngineError, match=r"no group no-such-group \(QUAYSIDE_SOCKET_GROUP\)"):
        _listen(tmp_path / "docker.sock")
    assert not list(tmp_path.iterdir())
