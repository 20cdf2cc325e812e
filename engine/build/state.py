"""What a stage is after each step: a frozen value that the next step starts from."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from engine.build.cache import Layer
from engine.build.metadata import env_values
from engine.build.scope import Scope
from engine.oci.digest import Digest, chain_id
from engine.oci.image import ContainerConfig, Descriptor, History, ImageConfig
from engine.oci.platform import Platform

COMMENT = "quayside.dockerfile.v0"


@dataclass(frozen=True, slots=True)
class StageState:
    """`key` is the cache key of the last step, `chain` the snapshot's name (None: nothing yet),
    `missed` the number of the first step that had to be built, `cmd_is_ours` whether this stage
    has set CMD, `base` the id of the image it came FROM."""

    key: str
    platform: Platform
    scope: Scope
    config: ContainerConfig = field(default_factory=ContainerConfig)
    layers: tuple[Layer, ...] = ()
    chain: Digest | None = None
    history: tuple[History, ...] = ()
    author: str | None = None
    created: str | None = None
    missed: int | None = None
    cmd_is_ours: bool = False
    base: Digest | None = None

    @property
    def env(self) -> dict[str, str]:
        return env_values(self.config.env)

    @property
    def values(self) -> dict[str, str]:
        """What the next instruction expands its variables with."""
        return self.scope.values(self.env)

    def chain_with(self, layer: Layer) -> Digest:
        """The chain id with one more layer on top."""
        return chain_id([*(below.diff_id for below in self.layers), layer.diff_id])

    def after(self, key: str, text: str, created: str, layer: Layer | None) -> StageState:
        """After a step: its history entry, and its layer where it made one."""
        entry = History(
            created=created,
            created_by=text,
            comment=COMMENT,
            author=self.author,
            empty_layer=layer is None,
        )
        state = replace(self, key=key, created=created, history=(*self.history, entry))
        if layer is None:
            return state
        return replace(state, layers=(*self.layers, layer), chain=self.chain_with(layer))

    @classmethod
    def of_image(
        cls, key: str, image: ImageConfig, layers: tuple[Descriptor, ...], scope: Scope
    ) -> StageState:
        """FROM an image. Keys of the image's config that are not the specification's are dropped:
        they are about the build that made it."""
        history = image.history
        missing = len(image.rootfs.diff_ids) - sum(not entry.empty_layer for entry in history)
        # Some tools leave history out; ours would otherwise be taken for those layers'.
        history = (*(History(created=image.created) for _ in range(missing)), *history)
        return cls(
            key=key,
            platform=image.platform,
            scope=scope,
            config=replace(image.config, extra={}),
            layers=tuple(
                Layer(descriptor, diff_id)
                for descriptor, diff_id in zip(layers, image.rootfs.diff_ids, strict=True)
            ),
            chain=image.rootfs.chain_id if image.rootfs.diff_ids else None,
            history=history,
            author=image.author,
            created=image.created,
        )
