"""Which entry of an index a machine takes (containerd's platform matching)."""

from __future__ import annotations

from engine.errors import NotFound
from engine.oci.image import Descriptor, ImageIndex
from engine.oci.platform import Platform, candidates, key


def choose(index: ImageIndex, platform: Platform) -> Descriptor:
    """The entry that suits best; the first of equals. It may point to an index again.

    An entry without a platform is taken only where it is the only one. Raises NotFound, which
    names what is offered. Attestations (platform unknown) are never taken.
    """
    offers = [entry for entry in index.manifests if entry.platform is not None]
    for candidate in candidates(platform):
        for entry in offers:
            if entry.platform is not None and key(entry.platform) == candidate:
                return entry
    if len(index.manifests) == 1 and not offers:
        return index.manifests[0]
    names = sorted({str(e.platform) for e in offers} - {"unknown/unknown"})
    offered = ", ".join(names) or "nothing that can run"
    raise NotFound(
        f"no image for {platform}: it is offered for {offered}",
        hint="choose another tag, or build for one of these with --platform",
        platform=str(platform),
        offered=offered,
    )
