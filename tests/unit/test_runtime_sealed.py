"""The runtime's program in sealed memory."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from engine.runtime.sealed import sealed


def test_it_runs_and_nobody_can_write_to_it(tmp_path: Path) -> None:
    binary = tmp_path / "runc"
    shutil.copy2("/bin/echo", binary)
    program = sealed(binary)
    assert sealed(binary) == program
    assert subprocess.run([program, "hello"], capture_output=True, check=True).stdout == b"hello\n"
    descriptor = os.open(program, os.O_RDONLY)
    try:
        # All four: fewer are not enough for runc to believe it.
        assert fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & 0b1111 == 0b1111
        with pytest.raises(PermissionError):
            os.ftruncate(os.open(program, os.O_RDWR), 0)
    finally:
        os.close(descriptor)


def test_another_program_takes_its_place(tmp_path: Path) -> None:
    binary = tmp_path / "runc"
    shutil.copy2("/bin/echo", binary)
    before = sealed(binary)
    binary.unlink()
    shutil.copy2("/bin/true", binary)
    assert sealed(binary) != before
    assert subprocess.run([sealed(binary), "x"], capture_output=True, check=True).stdout == b""
