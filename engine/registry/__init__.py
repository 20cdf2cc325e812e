"""Talks to image registries (distribution-spec): resolve, fetch, sign in, mirrors.

It knows nothing of what is stored here or how layers are unpacked: images/pull joins the two.
"""

from engine.registry.auth import Credentials
from engine.registry.blob import BlobReader
from engine.registry.client import RegistryClient, Resolved
from engine.registry.endpoints import Endpoint
from engine.registry.session import RetryPolicy
from engine.registry.transport import Timeouts

__all__ = [
    "BlobReader",
    "Credentials",
    "Endpoint",
    "RegistryClient",
    "Resolved",
    "RetryPolicy",
    "Timeouts",
]
