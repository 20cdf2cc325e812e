"""Query parameters that Docker's engine knows and this one does not: refused by name where they
ask for something. Left out in silence they would be believed."""

from __future__ import annotations

from collections.abc import Mapping

from engine.api.call import Call
from engine.errors import Unsupported

# By method and address as the tables write them. Most are of API versions after ours.
_REFUSED: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("GET", "/images/json"): ("identity", "manifests"),
    ("GET", "/images/{name:.+}/json"): ("manifests", "platform"),
    ("GET", "/images/{name:.+}/history"): ("platform",),
    ("DELETE", "/images/{name:.+}"): ("platforms",),
    ("GET", "/images/{name:.+}/get"): ("platform",),
    ("GET", "/images/get"): ("platform",),
    ("POST", "/images/load"): ("platform",),
    ("POST", "/images/{name:.+}/push"): ("platform",),
}


def refuse(method: str, path: str, call: Call) -> None:
    """Raises Unsupported. What is false, or an empty list, asks for nothing."""
    for name in _REFUSED.get((method, path), ()):
        if call.flag(name) and call.text(name) not in ("[]", "null"):
            raise Unsupported(f"{name} is not supported here")
