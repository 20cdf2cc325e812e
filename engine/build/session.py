"""One build as it goes: what its steps share, and the cache they are taken from.

Holds the request, the engine's parts, the images and the context already looked at, and the trace
that explains the next build's misses. `take` is the one way a step gets its result. Leaves what
each instruction does to engine.build.solver and engine.build.transfer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

from engine.build import cache, export
from engine.build.cache import CacheEntry, Layer, StepTrace
from engine.build.context import BuildContext, Listing, SourceTree
from engine.build.copy import sequence
from engine.build.digests import DigestIndex, cache_dir
from engine.build.listings import Listings
from engine.build.packed import PackedContext, PackedTree
from engine.build.plan import Plan, Step
from engine.build.ports import BuildEngine, BuildRequest, LayerProgress, LocalImage
from engine.build.report import Reporter
from engine.build.scope import EPOCH
from engine.build.state import StageState
from engine.build.workspace import Workspace
from engine.dockerfile.dockerignore import DockerIgnore
from engine.dockerfile.instructions import Run, Transfer
from engine.errors import Cancelled, InvalidInput


class Session:
    """Used by one thread, but for an image's progress. `states` are of finished stages."""

    def __init__(
        self,
        request: BuildRequest,
        engine: BuildEngine,
        workspace: Workspace,
        plan: Plan,
        reporter: Reporter,
        cancelled: threading.Event,
    ) -> None:
        self.request = request
        self.engine = engine
        self.workspace = workspace
        self.plan = plan
        self.reporter = reporter
        self.cancelled = cancelled
        self.epoch = epoch_of(request)
        self.states: dict[int, StageState] = {}
        self.listings = Listings(cache_dir(engine.config.builds_dir))
        self._images: dict[str, LocalImage] = {}
        self._context: SourceTree | None = None
        last = engine.cache.last(request.position) if request.position else None
        self._last = dict(last.trace) if last else {}
        if not request.no_cache:
            engine.cache.expect([trace.key for trace in self._last.values()])
        self._trace = dict(self._last)

    @property
    def context(self) -> SourceTree:
        """Raises DockerfileError (.dockerignore), NotFound."""
        if self._context is None:
            text, given = self.request.ignore, self.request.context
            ignore = DockerIgnore.parse(text) if text.strip() else None
            stop = self.cancelled.is_set
            self._context = (
                PackedTree(given, ignore, cancelled=stop)
                if isinstance(given, PackedContext)
                else BuildContext(
                    given,
                    ignore,
                    index=DigestIndex.of_folder(self.engine.config.builds_dir, given),
                    cancelled=stop,
                )
            )
        return self._context

    def remember(self) -> None:
        """Keep what the next build can use, also of one that failed."""
        if self._context is not None:
            with suppress(OSError):  # a full disk: it costs the next build time, no more
                self._context.save()
        if self.request.position and self._trace != self._last:
            self.engine.cache.put(CacheEntry.of_trace(self.request.position, self._trace))

    def last(self, step: Step) -> StepTrace | None:
        """What stood at the step's place in the build before."""
        return self._last.get(_place(step))

    def trace(self, step: Step, trace: StepTrace) -> None:
        """Note what the step is this time."""
        self._trace[_place(step)] = trace

    def image(self, step: Step, name: str) -> tuple[LocalImage, bool]:
        """The image, and whether anything had to be fetched."""
        if name in self._images:
            return self._images[name], False
        report = self.reporter.pull(step)
        fetched = threading.Event()

        def progress(layer: LayerProgress) -> None:
            if not fetched.is_set():
                fetched.set()
                self.reporter.running(step, None)
            report(layer)

        image = self.engine.images.resolve(name, self.request.pull, progress, self.cancelled.is_set)
        self._images[name] = image
        return image, fetched.is_set()

    def take(
        self,
        step: Step,
        state: StageState,
        key: str,
        text: str,
        work: Callable[[str], None] | None = None,
        *,
        before: StageState | None = None,
        files: str = "",
        listings: Sequence[Listing] = (),
    ) -> StageState:
        """The stage after the step, its result taken from the cache or made by `work`, which gets
        the key of a fresh snapshot. `state` has the step's config already, `before` has not."""
        self.check_cancelled()
        args = (before or state).scope.in_use((before or state).env)
        trace = StepTrace(key, (before or state).key, operation_of(step), args, files)
        last = self.last(step)
        entry = self.hit(key, state)
        if entry is not None:
            self.trace(step, trace)
            self.reporter.ended(step, "cached", id=short(key))
            return state.after(key, text, entry.created, entry.layer)
        reason = cache.why_missed(
            trace,
            last,
            no_cache=self.request.no_cache,
            first_miss=state.missed,
            changed=self._changed(last, listings),
        )
        layer = None
        if work is not None:
            self.reporter.running(step, reason)
            layer = self._make(step, state, work)
        self.trace(step, trace)
        seconds = self.reporter.ended(step, "built", reason, id=short(key))
        created = self.now()
        after = state.after(key, text, created, layer)
        self.engine.cache.put(
            CacheEntry(
                key, layer=layer, chain=after.chain, created=created, seconds=seconds, files=files
            )
        )
        return after if after.missed is not None else replace(after, missed=step.n)

    def _make(self, step: Step, state: StageState, work: Callable[[str], None]) -> Layer | None:
        snapshots = self.engine.snapshots
        name = self.workspace.key(step.n)
        self.workspace.make("root")  # first of all: its folder is what says "clean up"
        snapshots.prepare(name, state.chain)
        work(name)
        layer = export.make_layer(
            snapshots, self.engine.content, name, self.epoch, self.cancelled.is_set
        )
        if layer is None:
            snapshots.remove(name)
        else:
            snapshots.commit(name, state.chain_with(layer))
        return layer

    def find(self, key: str) -> CacheEntry | None:
        """The entry, if what it made is still here."""
        entry = self.engine.cache.get(key)
        if entry is None or entry.layer is None:
            return entry
        here = self.engine.content.has(entry.layer.descriptor.digest)
        if not here or entry.chain is None or not self.engine.snapshots.exists(entry.chain):
            return None
        return entry

    def hit(self, key: str, state: StageState) -> CacheEntry | None:
        """The entry to take after `state`; None with --no-cache.

        A layer belongs on what it was made on: a step above, built again under the same key
        because its layer was gone or with --no-cache, may have come out otherwise.
        """
        entry = None if self.request.no_cache else self.find(key)
        if entry is not None and entry.layer is not None:
            return entry if entry.chain == state.chain_with(entry.layer) else None
        return entry

    def _changed(
        self, last: StepTrace | None, listings: Sequence[Listing]
    ) -> Sequence[cache.FileChange]:
        before = self.listings.load(last.files) if last is not None and listings else None
        return cache.compare_files(before, sequence(listings)) if before is not None else ()

    def check_cancelled(self) -> None:
        if self.cancelled.is_set():
            raise Cancelled(f"build {self.request.build_id} was cancelled")

    def now(self) -> str:
        if self.epoch is not None:
            return datetime.fromtimestamp(self.epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    def now_ns(self) -> int:
        if self.epoch is not None:
            return self.epoch * 10**9
        return int(datetime.now(UTC).timestamp()) * 10**9


def short(key: str) -> str:
    """Twelve digits of a key or a digest, as Docker shows them."""
    return key.removeprefix("sha256:")[:12]


def operation_of(step: Step) -> str:
    """What the step is, for people: its line, with the heredocs where it has some."""
    instruction = step.instruction
    if isinstance(instruction, Run | Transfer) and instruction.heredocs:
        return instruction.source
    return instruction.text


def epoch_of(request: BuildRequest) -> int | None:
    """SOURCE_DATE_EPOCH, seconds; None where the build has none. Raises InvalidInput."""
    text = request.args.get(EPOCH, "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 12):
        raise InvalidInput(
            f"{EPOCH} is not a time: {text}",
            hint="give seconds since 1970, like 1700000000",
            field="args",
        )
    return int(text)


def _place(step: Step) -> str:
    return f"{step.stage}:{step.index}"
