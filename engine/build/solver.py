"""Runs a build plan: each step from the cache where it is known, else built and remembered.

    Dockerfile -> plan -> stages in order -> steps (cache key, lookup, work, layer) -> image

A step is found by its key and built otherwise; why is told by comparing with the build before at
the same position. One build runs its stages one after another. Does not write rows, name images,
or say "done" in the log: the caller does, after its row.
"""

from __future__ import annotations

import errno
import threading
from dataclasses import replace

from engine.build import cache, export, metadata
from engine.build.cache import Reason, StepTrace
from engine.build.checks import unsupported
from engine.build.copy import make_folder
from engine.build.plan import Plan, Stage, Step, make_plan
from engine.build.ports import BuildEngine, BuildLog, BuildRequest, BuildResult
from engine.build.report import Reporter
from engine.build.run import Uplink, cancellation_of, run_command
from engine.build.scope import Scope, platform_args, unused_args
from engine.build.session import Session, short
from engine.build.state import StageState
from engine.build.transfer import TransferStep
from engine.build.workspace import Workspace, clean_up
from engine.dockerfile import parse, parse_trigger, substitute
from engine.dockerfile.instructions import Arg, Maintainer, Run, Transfer, Workdir
from engine.errors import Cancelled, DockerfileError, NoSpace, QuaysideError, StepFailed
from engine.oci import platform

__all__ = ["build", "clean_up"]


def build(
    request: BuildRequest, engine: BuildEngine, log: BuildLog, cancelled: threading.Event
) -> BuildResult:
    """Build the request's target. Nothing stays mounted or running, whatever happens.

    Raises DockerfileError, Unsupported, NotFound, ContextError, RegistryError, StepFailed (context:
    code, line, end_line, source, snapshot: the key of the file system it failed in, which stays),
    NoSpace, Cancelled, and EngineErrors. Every error of a step carries line, end_line and source.
    """
    keep: list[str] = []
    workspace = Workspace(engine.config, request.build_id)
    if workspace.folder.exists():
        clean_up(request.build_id, engine)  # an attempt before this one lost its worker
    try:
        reporter = Reporter(log)
        plan = _plan(request, reporter)
        return _Build(Session(request, engine, workspace, plan, reporter, cancelled)).run()
    except StepFailed as error:
        keep.append(str(error.context.get("snapshot", "")))
        raise
    finally:
        if workspace.folder.exists():  # not after a build that was cached as a whole
            clean_up(request.build_id, engine, keep)


class _Build:
    def __init__(self, session: Session) -> None:
        self.session = session
        self.engine = session.engine
        self.reporter = session.reporter
        self.workspace = session.workspace
        self.uplink = Uplink(session.engine, session.workspace)

    @property
    def plan(self) -> Plan:
        return self.session.plan

    def run(self) -> BuildResult:
        session = self.session
        try:
            for stage in self.plan.stages:
                session.states[stage.index] = self._stage(stage)
        finally:
            self.uplink.close()
            session.remember()
        state = session.states[self.plan.target.index]
        top, config, image, manifest = export.write_image(self.engine.content, state)
        return BuildResult(
            manifest=top,
            config=config,
            image_config=image,
            layers=manifest.layers,
            size=top.size + config.size + sum(layer.size for layer in manifest.layers),
            steps=self.reporter.results,
            base=state.base,
        )

    def _stage(self, stage: Stage) -> StageState:
        state: StageState | None = None
        waiting = list(reversed(self.session.plan.steps_of(stage)))
        while waiting:
            step = waiting.pop()
            self.reporter.begin(step)
            try:
                self.session.check_cancelled()
                if state is None:
                    state = self._from(step, stage)
                    if state.config.on_build:
                        state, steps = self._triggers(stage, state)
                        waiting = list(reversed(steps[1:]))
                else:
                    state = self._step(step, state)
            except Cancelled:
                self.reporter.ended(step, "cancelled")
                raise
            except OSError as error:
                self.reporter.ended(step, "failed")
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                full = NoSpace("the disk is full", hint="free some space, then build again")
                _locate(full, step, self.plan.file)
                raise full from error
            except Exception as error:
                if isinstance(error, QuaysideError):
                    _locate(error, step, self.plan.file)
                self.reporter.ended(step, "failed")
                raise
        assert state is not None  # a stage begins with FROM
        return state

    def _step(self, step: Step, state: StageState) -> StageState:
        written = step.instruction
        if isinstance(written, Arg):
            return self._arg(step, written, state)
        instruction = written
        if not step.literal:
            instruction = substitute(written, state.values, self.plan.escape, self.plan.file)
        if isinstance(instruction, Run):
            return self._run(step, instruction, state)
        if isinstance(instruction, Transfer):
            return TransferStep(self.session, step, instruction).run(state)
        if isinstance(instruction, Workdir):
            return self._workdir(step, instruction, state)
        if isinstance(instruction, Maintainer):
            key = cache.metadata_key(state.key, "MAINTAINER", instruction.name)
            text = f"MAINTAINER {instruction.name}"
            return self.session.take(step, replace(state, author=instruction.name), key, text)
        if isinstance(instruction, metadata.Metadata):
            change = metadata.apply(instruction, state.config, cmd_is_ours=state.cmd_is_ours)
            ours = state.cmd_is_ours or instruction.keyword == "CMD"
            after = replace(state, config=change.config, cmd_is_ours=ours)
            key = cache.metadata_key(state.key, instruction.keyword, change.text)
            return self.session.take(step, after, key, change.text, before=state)
        raise unsupported(written, written.keyword, "remove the line", self.plan.file)

    # FROM

    def _from(self, step: Step, stage: Stage) -> StageState:
        scope = Scope(self.session.request.args, self.plan.global_args)
        if isinstance(stage.base, int):
            base = self.session.states[stage.base]
            scope = replace(scope, declared=base.scope.declared)
            name = short(base.key)
            if base.missed is None:
                self.reporter.ended(step, "cached", id=name)
            else:
                why = Reason("parent", f"step {base.missed} was built anew")
                self.reporter.ended(step, "built", why, id=name)
            return replace(base, scope=scope, cmd_is_ours=False)
        if stage.base is None:
            self.reporter.ended(step, "cached")
            key = cache.base_key(None, self.session.epoch)
            self.session.trace(step, StepTrace(key, "", step.instruction.text))
            return StageState(key, platform.host(), scope)
        image, fetched = self.session.image(step, stage.base)
        digest = str(image.config.digest)
        key = cache.base_key(digest, self.session.epoch)
        trace = StepTrace(key, "", step.instruction.text, base=digest)
        last = self.session.last(step)
        reason = None
        if last is not None and last != trace:
            reason = cache.why_missed(trace, last, no_cache=False, first_miss=None, changed=())
        self.session.trace(step, trace)
        self.reporter.ended(
            step, "built" if reason or fetched else "cached", reason, id=short(digest)
        )
        state = StageState.of_image(key, image.image_config, image.layers, scope)
        return replace(state, missed=step.n if reason else None, base=image.config.digest)

    def _triggers(self, stage: Stage, state: StageState) -> tuple[StageState, tuple[Step, ...]]:
        """The stage's steps with its base's ONBUILD triggers among them, which run this once: the
        image made here has its own only. Their errors are at the line of FROM."""
        at = stage.steps[0].instruction
        triggers = []
        for text in state.config.on_build:
            try:
                trigger = parse_trigger(text)
            except DockerfileError as error:
                raise metadata.error_at(
                    at,
                    f"the ONBUILD trigger {text!r} of {stage.base}: {error.message}",
                    hint=error.hint,
                    file=self.plan.file,
                ) from error
            triggers.append(replace(trigger, line=at.line, end_line=at.end_line))
        self.session.plan = self.plan.with_triggers(stage, triggers)
        self.reporter.plan(self.plan)
        return (
            replace(state, config=replace(state.config, on_build=())),
            self.plan.steps_of(stage),
        )

    # Metadata

    def _arg(self, step: Step, written: Arg, state: StageState) -> StageState:
        arg = substitute(written, state.values, self.plan.escape, self.plan.file)
        scope = state.scope.declare(arg)
        words = [
            f"{name}={scope.declared[name]}" if name in scope.declared else name
            for name, _ in arg.pairs
        ]
        # By what is written, not by the value: a changed one shows at its first use.
        key = cache.metadata_key(state.key, "ARG", [list(pair) for pair in written.pairs])
        text = f"ARG {' '.join(words)}"
        return self.session.take(step, replace(state, scope=scope), key, text, before=state)

    def _workdir(self, step: Step, instruction: Workdir, state: StageState) -> StageState:
        path = metadata.working_dir(state.config.working_dir, instruction.path)
        key = cache.metadata_key(state.key, "WORKDIR", path)

        def work(name: str) -> None:
            root = self.workspace.make("root")
            make_folder(self.engine.snapshots, name, root, path, self.session.now_ns())

        after = replace(state, config=replace(state.config, working_dir=path))
        return self.session.take(step, after, key, f"WORKDIR {path}", work, before=state)

    # RUN

    def _run(self, step: Step, instruction: Run, state: StageState) -> StageState:
        argv = metadata.command(instruction, state.config)
        args = state.scope.in_use(state.env)
        extra: dict[str, object] = {"network": instruction.network}
        if script := instruction.script:
            extra["script"] = script.text
        key = cache.run_key(state.key, argv, args, extra)
        text = f"RUN {metadata.arguments_text(args)}{' '.join(argv)}"

        def work(name: str) -> None:
            output = self.reporter.output(step)
            with cancellation_of(self.session.cancelled) as cancellation:
                code = run_command(
                    self.engine,
                    self.workspace,
                    name,
                    instruction,
                    state,
                    self.uplink,
                    output,
                    cancellation,
                    self.session.request.run,
                )
            if code != 0:
                raise StepFailed(
                    f"the command ended with code {code}",
                    hint=_HINTS.get(code, "its output above says why"),
                    code=code,
                    command=" ".join(argv),
                    snapshot=name,
                )

        return self.session.take(step, state, key, text, work)


def _plan(request: BuildRequest, reporter: Reporter) -> Plan:
    dockerfile = parse(request.dockerfile, request.dockerfile_name)
    host = platform.host()
    plan = make_plan(dockerfile, request.args, request.target, host).with_labels(request.labels)
    reporter.plan(plan)
    for finding in dockerfile.warnings:
        reporter.warn(finding.message, finding.line, finding.end_line)
    for name in unused_args(dockerfile, request.args, platform_args(host, request.target)):
        reporter.warn(f"no ARG asks for the build argument {name}", arg=name)
    return plan


def _locate(error: QuaysideError, step: Step, file: str) -> None:
    """Every error of a step says at which lines of the Dockerfile it happened."""
    instruction = step.instruction
    for name, value in (
        ("file", file),
        ("line", instruction.line),
        ("end_line", instruction.end_line),
        ("source", instruction.source),
    ):
        error.context.setdefault(name, value)


_HINTS = {
    126: "the file is there but cannot be executed: look at its mode and its first line",
    127: "the command is not in the image: install it in a step before, or look for a slip",
    137: "it was killed, perhaps because the memory was full",
}
