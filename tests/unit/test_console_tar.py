"""The browser's own tar packer and .dockerignore reader, run by node and held to Python's tarfile
and to the engine's own matcher."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from pathlib import Path

from engine.dockerfile.dockerignore import DockerIgnore

TAR_JS = Path(__file__).resolve().parents[2] / "static" / "js" / "tar.js"


def node(script: str, given: object) -> bytes:
    """What the module's user writes to stdout; `given` stands in it as `given`."""
    code = (
        f'import {{ ignoreRules, pack, packedSize }} from "{TAR_JS}";\n'
        'import { readFileSync } from "node:fs";\n'
        f"const given = JSON.parse(readFileSync(0));\n{script}"
    )
    command = ["node", "--input-type=module", "--eval", code]
    return subprocess.run(
        command, input=json.dumps(given).encode(), stdout=subprocess.PIPE, check=True
    ).stdout


PACK = """
const entries = given.map(([path, text]) => ({
  path,
  file: text === null ? null : Object.assign(new Blob([text]), { lastModified: 1.7e12 }),
}));
let size = 0;
for (const part of pack(entries)) {
  const piece = part instanceof Blob ? new Uint8Array(await part.arrayBuffer()) : part;
  size += piece.length;
  process.stdout.write(piece);
}
if (size !== packedSize(entries)) throw new Error(`${size} is not ${packedSize(entries)}`);
"""


def test_the_browser_packs_what_tarfile_reads() -> None:
    files: list[tuple[str, str | None]] = [
        ("Dockerfile", "FROM node\n"),
        ("empty", ""),
        ("folder", None),
        ("block", "x" * 512),
        ("more", "x" * 1_300_000),
        ("한글 이름.txt", "안녕"),
        ("deep/" * 30 + "name", "deep"),
    ]
    data = node(PACK, files)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        members = archive.getmembers()
        assert [(m.name, m.isdir()) for m in members] == [(n, t is None) for n, t in files]
        for member, (name, text) in zip(members, files, strict=True):
            assert (member.mode, member.mtime) == (0o755, 1_700_000_000 if text is not None else 0)
            if text is not None:
                read = archive.extractfile(member)
                assert read is not None and read.read() == text.encode(), name


IGNORE = """
const [rules, paths] = given;
const ignored = ignoreRules(rules);
process.stdout.write(JSON.stringify(paths.map((path) => ignored(path))));
"""


def test_the_browser_leaves_out_what_the_engine_would() -> None:
    rules = (
        "# notes\n/node_modules/\n*.log\n!keep.log\n**/*.tmp\nbuild/**\n!build/keep\na?c\n[xyz].md"
    )
    paths = [
        "node_modules/a/b.js", "src/node_modules/x", "a.log", "keep.log", "src/a.log", "a.tmp",
        "src/deep/a.tmp", "build/out/a", "build/keep", "abc", "abbc", "x.md", "w.md", "Dockerfile",
        "nodexmodules", "a+b",
    ]  # fmt: skip
    engine = DockerIgnore.parse(rules)
    found = json.loads(node(IGNORE, [rules, paths]))
    assert dict(zip(paths, found, strict=True)) == {
        path: engine.ignores(path, False) for path in paths
    }
