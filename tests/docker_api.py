"""What the Docker Engine API knows: every endpoint with its query parameters, every property of the
bodies that ask for something.

tests/data/docker-api.json holds it, made of the Engine API's description (an OpenAPI file; moby's
api/swagger.yaml) by `python -m tests.docker_api FILE`. Properties are paths: `HostConfig.Ulimits[]
.Soft` is one of a list's objects, `Labels{}` a map's value.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

KNOWN = Path(__file__).with_name("data") / "docker-api.json"
_METHODS = ("get", "head", "post", "put", "delete")
# The endpoints whose bodies are commands, by what errors and tests call them.
BODIES = {
    "ContainerCreate": "/containers/create",
    "ContainerUpdate": "/containers/{id}/update",
    "ExecCreate": "/containers/{id}/exec",
    "ExecStart": "/exec/{id}/start",
    "NetworkCreate": "/networks/create",
    "NetworkConnect": "/networks/{id}/connect",
    "NetworkDisconnect": "/networks/{id}/disconnect",
    "VolumeCreate": "/volumes/create",
}


def endpoints() -> dict[str, list[str]]:
    """ "GET /containers/json": the names of its query's parameters."""
    found: dict[str, list[str]] = json.loads(KNOWN.read_text())["endpoints"]
    return found


def properties(body: str) -> dict[str, str]:
    """Path: type ("string", "integer", "boolean", "number", "object", "array")."""
    found: dict[str, str] = json.loads(KNOWN.read_text())["bodies"][body]
    return found


def main() -> None:
    document = yaml.safe_load(Path(sys.argv[1]).read_text())
    found = {
        "version": document["info"]["version"],
        "endpoints": dict(_endpoints(document)),
        "bodies": {
            name: dict(sorted(_properties(document, _body(document["paths"][path]["post"]), "")))
            for name, path in BODIES.items()
        },
    }
    KNOWN.write_text(json.dumps(found, indent=1) + "\n")


def _endpoints(document: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    for path, methods in document["paths"].items():
        for method in _METHODS:
            if method in methods:
                parameters = methods[method].get("parameters", ())
                names = sorted(one["name"] for one in parameters if one["in"] == "query")
                yield f"{method.upper()} {path}", names


def _body(operation: dict[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = next(
        one["schema"] for one in operation["parameters"] if one["in"] == "body"
    )
    return schema


def _properties(
    document: dict[str, Any], schema: dict[str, Any], path: str
) -> Iterator[tuple[str, str]]:
    if reference := schema.get("$ref"):
        schema = document["definitions"][reference.rpartition("/")[2]]
    for part in schema.get("allOf", ()):
        yield from _properties(document, part, path)
    known = schema.get("properties", {})
    for name, inner in known.items():
        yield from _properties(document, inner, f"{path}.{name}" if path else name)
    if "items" in schema:
        yield from _properties(document, schema["items"], f"{path}[]")
    elif isinstance(schema.get("additionalProperties"), dict):
        yield from _properties(document, schema["additionalProperties"], f"{path}{{}}")
    elif not known and "allOf" not in schema and path:
        yield path, str(schema.get("type", "object"))


if __name__ == "__main__":
    main()
