"""The values of the OCI specifications: pure data, no I/O; all of engine stands on it."""

from engine.oci.choice import choose
from engine.oci.digest import Digest, chain_id, chain_ids
from engine.oci.image import (
    ContainerConfig,
    Descriptor,
    Healthcheck,
    History,
    ImageConfig,
    ImageIndex,
    Manifest,
    RootFS,
)
from engine.oci.platform import Platform, host, matches
from engine.oci.reference import Reference

__all__ = [
    "ContainerConfig",
    "Descriptor",
    "Digest",
    "Healthcheck",
    "History",
    "ImageConfig",
    "ImageIndex",
    "Manifest",
    "Platform",
    "Reference",
    "RootFS",
    "chain_id",
    "chain_ids",
    "choose",
    "host",
    "matches",
]
