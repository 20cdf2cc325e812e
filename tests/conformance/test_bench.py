"""script/bench does what it says, on small amounts: the figures themselves are nobody's test."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from xml.etree import ElementTree

from tests.site import ROOT


def test_quick_run(tmp_path: Path) -> None:
    done = subprocess.run(
        [ROOT / "script/bench", "--quick", "--only", "exec|network none", "--to", tmp_path],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    table = (tmp_path / "RESULTS.md").read_text()
    rows = re.findall(r"^\| (.+?) \| ([0-9,]+) (?:ms|MB) \| ([0-9,]+) ", table, re.MULTILINE)
    names = [name for name, docker, quayside in rows if docker != "0" and quayside != "0"]
    assert names == ["run --rm --network none true", "exec true", "idle memory (PSS)"]
    assert "dockerd 20.10" in table and "quayside" in table
    plot = ElementTree.parse(tmp_path / "results.svg").getroot()
    assert len(plot.findall("{*}text")) == 1 + 2 * len(rows)
