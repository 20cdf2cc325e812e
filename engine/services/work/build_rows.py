"""What engine.build stands on, over rows: images (fetched where they are not here), the cache, and
addresses for RUN steps. Whatever is used is leased until the build's image has its row."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from ipaddress import IPv4Address
from typing import Any

from engine.build.cache import CacheEntry
from engine.build.ports import LayerProgress, LocalImage
from engine.errors import NotFound
from engine.images.leases import Lease
from engine.models import BuildCacheEntry, Endpoint, Image, Namespace, Network
from engine.network.spec import NetworkSpec
from engine.oci.digest import Digest, chain_ids
from engine.oci.image import Descriptor, ImageConfig
from engine.oci.reference import Reference
from engine.registry.credentials import handed_over
from engine.services import addresses, images
from engine.services.work.host import host
from engine.services.work.images import fetch

# SQLite takes some 32,000 variables, PostgreSQL 65,535.
_AT_ONCE = 500


class RowImages:
    """engine.build's ImageSource over rows, fetching from a registry what is not here."""

    def __init__(
        self, namespace: Namespace, lease: Lease | None, auth: Mapping[str, str] | None = None
    ) -> None:
        self._namespace = namespace
        self._lease = lease
        self._auth = auth or {}

    def resolve(
        self,
        reference: str,
        pull: bool,
        progress: Callable[[LayerProgress], None],
        cancelled: Callable[[], bool],
    ) -> LocalImage:
        image = None if pull else self._here(reference)
        while image is None:
            parsed = Reference.parse(reference)
            fetch(
                self._namespace,
                parsed,
                lambda p: progress(LayerProgress(str(p.digest), p.current, p.total, p.kind)),
                cancelled,
                credentials=handed_over(host().config.run_dir, self._auth.get(parsed.domain, "")),
            )
            image = self._here(reference)
        content = host().content
        config = Digest.parse(image.digest)
        return LocalImage(
            config=Descriptor(
                media_type="application/vnd.oci.image.config.v1+json",
                digest=config,
                size=content.info(config).size,
            ),
            image_config=ImageConfig.from_json(content.read(config)),
            layers=tuple(
                Descriptor(
                    media_type=layer["media_type"],
                    digest=Digest.parse(layer["digest"]),
                    size=layer["size"],
                )
                for layer in image.layers
            ),
        )

    def _here(self, reference: str) -> Image | None:
        """The image, and nobody who removes it now takes its content away before the build ends."""
        try:
            image = images.find_image(self._namespace, reference)
        except NotFound:
            return None
        if self._lease is not None:
            chains = chain_ids([Digest.parse(layer["diff_id"]) for layer in image.layers])
            blobs = [image.manifest_digest, image.digest]
            blobs += [layer["digest"] for layer in image.layers]
            self._lease.keep(*blobs, *chains)
            # Removed just before the lease knew of it? What is here now stays.
            parts = host()
            here = all(parts.content.has(Digest.parse(blob)) for blob in blobs)
            if not (here and all(map(parts.snapshots.exists, chains))):
                return None
        return image


class RowCache:
    """engine.build's CacheStore over rows."""

    def __init__(self, namespace: Namespace, lease: Lease | None) -> None:
        self._rows = BuildCacheEntry.objects.filter(namespace=namespace)
        self._namespace = namespace
        self._lease = lease
        self._expected: dict[str, dict[str, Any]] = {}

    def expect(self, keys: Collection[str]) -> None:
        self._expected = {}
        some = list(keys)
        for start in range(0, len(some), _AT_ONCE):
            found = self._rows.filter(key__in=some[start : start + _AT_ONCE])
            self._expected.update(found.values_list("key", "entry"))

    def get(self, key: str) -> CacheEntry | None:
        """Whether what it names is here is looked at after it is leased."""
        entry = self._expected.get(key)
        if entry is None:
            entry = self._rows.filter(key=key).values_list("entry", flat=True).first()
        return self._kept(CacheEntry.from_json(entry)) if entry else None

    def _kept(self, entry: CacheEntry) -> CacheEntry:
        if self._lease is not None and entry.layer is not None:
            self._lease.keep(entry.layer.descriptor.digest, *filter(None, (entry.chain,)))
        return entry

    def put(self, entry: CacheEntry) -> None:
        self._kept(entry)
        self._expected.pop(entry.key, None)
        BuildCacheEntry.objects.update_or_create(
            namespace=self._namespace,
            key=entry.key,
            defaults={"position": entry.position, "entry": entry.to_json()},
        )

    def last(self, position: str) -> CacheEntry | None:
        row = self._rows.filter(position=position).order_by("-used_at").first()
        return CacheEntry.from_json(row.entry) if row else None


class RowAddresses:
    """engine.build's AddressLease: addresses from the table that containers' come from."""

    def acquire(self, network: NetworkSpec, owner: str) -> IPv4Address:
        row = Network.objects.get(pk=int(network.id.removeprefix("n")))
        return IPv4Address(str(addresses.give(addresses.take(row, owner=owner)).address))

    def release(self, network: NetworkSpec, owner: str) -> None:
        Endpoint.objects.filter(network_id=int(network.id.removeprefix("n")), owner=owner).delete()
