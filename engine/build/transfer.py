"""COPY and ADD: which files, under which key, and how they come into the image.

Sources are the build context, another stage, an image, or heredocs. The key is the content's; for
another stage or image there is one of the definition before it, so that a cached build reads
nothing. Leaves reading to engine.build.context, writing to engine.build.copy.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from engine.build import cache
from engine.build.cache import CacheEntry
from engine.build.checks import check_local, octal_mode
from engine.build.context import Listing, SourceTree
from engine.build.copy import Twin, copy_into, sequence
from engine.build.listings import twins
from engine.build.placement import CopyJob
from engine.build.plan import Step
from engine.build.session import Session, operation_of
from engine.build.sources import (
    destination,
    heredoc_tree,
    history_text,
    needs_root,
    owner_of,
    sources_of,
    unpacked,
)
from engine.build.state import StageState
from engine.dockerfile.instructions import Transfer


class TransferStep:
    """One COPY or ADD whose variables are put in."""

    def __init__(self, session: Session, step: Step, instruction: Transfer) -> None:
        self.session = session
        self.step = step
        self.instruction = instruction
        self.engine = session.engine
        self.workspace = session.workspace

    def run(self, state: StageState) -> StageState:
        """The stage after it. Raises ContextError, InvalidInput (--chown), Unsupported, NoSpace."""
        session, step, instruction = self.session, self.step, self.instruction
        for source in instruction.sources:
            check_local(instruction, source, session.plan.file)
        mode = octal_mode(instruction, session.plan.file)
        target = destination(instruction, state.config)
        extra: dict[str, object] = {"chown": instruction.chown, "chmod": instruction.chmod}
        definition = ""
        if step.origin is not None:
            origin = self._origin()
            definition = cache.copy_definition_key(
                state.key, instruction.keyword, target, origin or "", instruction.sources, extra
            )
            known = self._known(definition, state)
            if known is not None:
                return session.take(
                    step, state, known.key, history_text(instruction), files=known.files
                )
        with self._sources() as listings:
            key = cache.copy_key(
                state.key, instruction.keyword, target, sources_of(listings), extra
            )
            files = _digest(sources_of(listings))

            def work(name: str) -> None:
                session.listings.save(files, sequence(listings))
                root = self.workspace.make("root")
                owner = None
                if instruction.chown:
                    with self._root_for(instruction.chown, state, root):
                        owner = owner_of(instruction.chown, root)
                job = CopyJob(
                    unpacked(instruction, listings, self._folder, session.cancelled.is_set),
                    target,
                    owner,
                    mode,
                )
                copy_into(
                    self.engine.snapshots,
                    name,
                    root,
                    job,
                    twin=self._twin(sequence(listings)),
                    cancelled=session.cancelled.is_set,
                )

            after = session.take(
                step, state, key, history_text(instruction), work, files=files, listings=listings
            )
        if definition:
            self.engine.cache.put(CacheEntry(definition, alias=key, files=files))
        return after

    def _folder(self, name: str) -> Path:
        """A work folder of this step's own."""
        return self.workspace.make(f"{name}-{self.step.n}")

    def _known(self, definition: str, state: StageState) -> CacheEntry | None:
        """The entry of the content the definition stands for, if it can be taken."""
        pointer = self.engine.cache.get(definition)
        return self.session.hit(pointer.alias, state) if pointer and pointer.alias else None

    def _origin(self) -> str | None:
        """The chain id of what COPY --from takes from: it fixes the content."""
        origin = self.step.origin
        if isinstance(origin, int):
            return self.session.states[origin].chain
        assert origin is not None
        image, _ = self.session.image(self.step, origin)
        diff_ids = image.image_config.rootfs.diff_ids
        return image.image_config.rootfs.chain_id if diff_ids else None

    @contextmanager
    def _sources(self) -> Iterator[list[Listing]]:
        session, step, instruction = self.session, self.step, self.instruction
        trees: list[tuple[SourceTree, Sequence[str]]] = []
        mounted: Path | None = None
        try:
            if step.origin is not None:
                chain = self._origin()
                what = f"stage {step.origin}" if isinstance(step.origin, int) else step.origin
                root = self.workspace.make("from")
                if chain is not None:
                    self.engine.snapshots.view_mount(chain, root)
                    mounted = root
                stop = session.cancelled.is_set
                tree = SourceTree(root, what=what, special=True, cancelled=stop)
                trees.append((tree, instruction.sources))
            elif instruction.sources:
                trees.append((session.context, instruction.sources))
            if instruction.heredocs:
                folder = self._folder("heredocs")
                tree = heredoc_tree(instruction.heredocs, folder, session.epoch)
                trees.append((tree, sorted(path.name for path in folder.iterdir())))
            yield [tree.listing(source) for tree, names in trees for source in tree.match(names)]
        finally:
            if mounted is not None:
                self.engine.snapshots.unmount(mounted)

    @contextmanager
    def _root_for(self, chown: str, state: StageState, root: Path) -> Iterator[None]:
        """The image's own root, mounted where the owner has a name."""
        if not needs_root(chown) or state.chain is None:
            yield
            return
        self.engine.snapshots.view_mount(state.chain, root)
        try:
            yield
        finally:
            self.engine.snapshots.unmount(root)

    def _twin(self, lines: dict[str, str]) -> Twin | None:
        """Finds a file's equal in the layer this step made the last time."""
        session, instruction = self.session, self.instruction
        last = session.last(self.step)
        # With SOURCE_DATE_EPOCH times are set in the upper, so nothing in it may be shared.
        if last is None or session.epoch is not None or instruction.chown or instruction.chmod:
            return None
        if last.operation != operation_of(self.step):
            return None
        before = session.listings.load(last.files)
        entry = session.find(last.key)
        if before is None or entry is None or entry.layer is None or entry.chain is None:
            return None
        return twins(self.engine.snapshots.layer(entry.chain), before, lines)


def _digest(sources: Sequence[tuple[str, str]]) -> str:
    return hashlib.sha256(json.dumps(sources).encode()).hexdigest()
