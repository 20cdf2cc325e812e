"""Writes what was measured: a table (RESULTS.md) and a plot of the ratios (results.svg)."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from pathlib import Path

_WIDTH, _LINE, _LEFT, _SCALE = 820, 26, 270, 340
_LONGEST = 1.5


@dataclass(frozen=True, slots=True)
class Row:
    """Medians; `wanted` is the ratio asked for."""

    name: str
    unit: str
    docker: float
    quayside: float
    wanted: float | None
    times: int

    @property
    def ratio(self) -> float:
        return self.quayside / self.docker if self.docker else 0.0

    @property
    def met(self) -> bool:
        return self.wanted is None or self.ratio <= self.wanted

    def line(self) -> str:
        wanted = (
            "" if self.wanted is None else f"≤ {self.wanted:.1f}{'' if self.met else ' missed'}"
        )
        return (
            f"| {self.name} | {self.docker:,.0f} {self.unit} | {self.quayside:,.0f} {self.unit} |"
            f" {self.ratio:.2f} | {wanted} | {self.times} |"
        )


def write_results(folder: Path, rows: Sequence[Row], versions: Sequence[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "RESULTS.md").write_text(_table(rows, versions))
    (folder / "results.svg").write_text(_plot(rows))


def _table(rows: Sequence[Row], versions: Sequence[str]) -> str:
    text = [
        "# Quayside beside Docker",
        "",
        f"Taken by `script/bench` on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC: {_machine()}.",
        (
            f"{'; '.join(versions)}; the same docker CLI ({_cli()}) for both, in turn, A B A B;"
            " medians. A ratio is Quayside / Docker: below 1 is faster, or smaller."
        ),
        "",
        "| what | Docker | Quayside | ratio | wanted | repetitions |",
        "|---|--:|--:|--:|--:|--:|",
        *(row.line() for row in rows),
        "",
        "![ratios](results.svg)",
        "",
    ]
    missed = [row for row in rows if not row.met]
    if missed:
        names = ", ".join(f"{row.name} ({row.ratio:.2f} for {row.wanted})" for row in missed)
        text += [f"Short of what is wanted: {names}.", ""]
    return "\n".join(text)


def _machine() -> str:
    cpuinfo = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*: (.*)$", cpuinfo, re.MULTILINE)
    memory = re.search(r"MemTotal: +(\d+)", Path("/proc/meminfo").read_text())
    release = re.search(r'^PRETTY_NAME="(.*)"$', Path("/etc/os-release").read_text(), re.MULTILINE)
    parts = [
        f"{os.cpu_count()} CPUs" + (f" ({model[1]})" if model else ""),
        f"{int(memory[1]) / 1e6:.0f} GB" if memory else "",
        release[1] if release else "",
        f"Linux {platform.release()}",
        f"load {os.getloadavg()[2]:.1f}",
    ]
    return ", ".join(part for part in parts if part)


def _cli() -> str:
    done = subprocess.run(
        ["docker", "version", "--format", "{{.Client.Version}}"],
        capture_output=True,
        text=True,
        check=False,  # it also fails for want of a daemon, having said what was asked
        env={"PATH": os.environ["PATH"], "DOCKER_HOST": "unix:///nowhere"},
    )
    return done.stdout.strip()


def _label(row: Row) -> float:
    """Where its figure is written: behind the mark of what is wanted, if that would cross it."""
    crossed = row.wanted is not None and row.ratio <= row.wanted < row.ratio + 0.12
    return row.wanted if crossed and row.wanted is not None else row.ratio


def _plot(rows: Sequence[Row]) -> str:
    """A bar a row; the line is Docker's 1.0, a mark what is wanted."""
    height = 40 + _LINE * len(rows)

    def at(ratio: float) -> float:
        return _LEFT + min(ratio, _LONGEST) * _SCALE

    body = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}"'
            ' font-family="sans-serif" font-size="13">'
        ),
        f'<rect width="{_WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="{at(1):.0f}" y="18" text-anchor="middle">Docker = 1</text>',
    ]
    for number, row in enumerate(rows):
        y = 30 + number * _LINE
        bar = "#2f6f8f" if row.met else "#b3543a"
        body += [
            f'<text x="{_LEFT - 8}" y="{y + 13}" text-anchor="end">{escape(row.name)}</text>',
            (
                f'<rect x="{_LEFT}" y="{y}" width="{at(row.ratio) - _LEFT:.1f}" height="18"'
                f' fill="{bar}"/>'
            ),
            f'<text x="{at(_label(row)) + 6:.1f}" y="{y + 13}">{row.ratio:.2f}</text>',
        ]
        if row.wanted is not None:
            body.append(
                f'<line x1="{at(row.wanted):.1f}" x2="{at(row.wanted):.1f}" y1="{y - 2}"'
                f' y2="{y + 20}" stroke="#c90" stroke-width="2"/>'
            )
    body += [
        (
            f'<line x1="{at(1):.1f}" x2="{at(1):.1f}" y1="24" y2="{height - 6}" stroke="#555"'
            ' stroke-dasharray="4 3"/>'
        ),
        "</svg>",
        "",
    ]
    return "\n".join(body)
