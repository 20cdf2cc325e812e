"""The build plan: which stages and steps a target needs, in which order, or why it cannot be.

Made from the parsed Dockerfile alone, before anything is fetched or run: unknown stages, foreign
platforms and instructions that are not built yet are errors here, at their lines. Leaves doing
it to engine.build.solver.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from engine.build.checks import check, unsupported
from engine.build.metadata import error_at
from engine.build.scope import global_values, platform_args
from engine.dockerfile import Dockerfile, substitute
from engine.dockerfile.instructions import (
    Copy,
    From,
    Instruction,
    Label,
)
from engine.errors import InvalidInput, InvalidReference, NotFound
from engine.oci import platform
from engine.oci.platform import Platform
from engine.oci.reference import Reference

SCRATCH = "scratch"


@dataclass(frozen=True, slots=True)
class Step:
    """`n` counts the plan's steps from 1; `index` the stage's own from 0, FROM being it.

    `origin` is where COPY --from takes its files: a stage's index or an image's name. `trigger`
    tells an ONBUILD of the stage's base, `literal` a label of the request, which expands nothing.
    """

    n: int
    stage: int
    index: int
    instruction: Instruction
    origin: int | str | None = None
    trigger: bool = False
    literal: bool = False


@dataclass(frozen=True, slots=True)
class Stage:
    """`base` is a stage's index, an image's name, or None for scratch."""

    index: int
    name: str
    base: int | str | None
    steps: tuple[Step, ...]

    @property
    def needs(self) -> frozenset[int]:
        """Stages that must be there before this one."""
        found = {step.origin for step in self.steps} | {self.base}
        return frozenset(need for need in found if isinstance(need, int))


@dataclass(frozen=True, slots=True)
class Plan:
    """`stages` are the needed ones, each after those it needs; the last is the target. `before`
    are the lines above the first FROM, `names` all stages' by their index."""

    stages: tuple[Stage, ...]
    global_args: Mapping[str, str]
    escape: str
    file: str
    before: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    @property
    def target(self) -> Stage:
        return self.stages[-1]

    @property
    def steps(self) -> tuple[Step, ...]:
        return tuple(step for stage in self.stages for step in stage.steps)

    def steps_of(self, stage: Stage) -> tuple[Step, ...]:
        """The stage's steps as this plan has them."""
        return next(one.steps for one in self.stages if one.index == stage.index)

    def with_triggers(self, stage: Stage, triggers: Sequence[Instruction]) -> Plan:
        """The plan with the ONBUILD triggers of the stage's base right after its FROM; what comes
        after them counts on from there. Raises DockerfileError, Unsupported."""
        added = []
        for instruction in triggers:
            check(instruction, self.file)
            origin = _origin(instruction, stage.index, self.names, self.file)
            if isinstance(origin, int) and all(other.index != origin for other in self.stages):
                raise error_at(
                    instruction,
                    f"the trigger takes from stage {origin}, which this target does not build",
                    hint="build without --target",
                    file=self.file,
                )
            added.append(Step(0, stage.index, 0, instruction, origin, trigger=True))
        steps = (stage.steps[0], *added, *stage.steps[1:])
        stages = [
            replace(one, steps=steps) if one.index == stage.index else one for one in self.stages
        ]
        return replace(self, stages=_numbered(stages))

    def with_labels(self, labels: Mapping[str, str]) -> Plan:
        """The plan with a LABEL for each at the target's end, as Docker's classic builder."""
        last = self.target.steps[-1].instruction
        added = [
            Step(
                0,
                self.target.index,
                0,
                Label(
                    line=last.end_line,
                    end_line=last.end_line,
                    text=f"LABEL {name}={value}",
                    source=f"LABEL {name}={value}",
                    pairs=((name, value),),
                ),
                literal=True,
            )
            for name, value in sorted(labels.items())
        ]
        target = replace(self.target, steps=(*self.target.steps, *added))
        return replace(self, stages=_numbered([*self.stages[:-1], target]))

    def to_event(self) -> dict[str, object]:
        """The log's first event; a second one tells the plan with the triggers of a base."""
        names = {stage.index: stage.name or str(stage.index) for stage in self.stages}
        return {
            "t": "plan",
            **({"before": list(self.before)} if self.before else {}),
            "steps": [
                {
                    "n": step.n,
                    "stage": names[step.stage],
                    "text": step.instruction.text,
                    "line": step.instruction.line,
                    "end": step.instruction.end_line,
                    **({"trigger": True} if step.trigger else {}),
                }
                for step in self.steps
            ],
        }


def _numbered(stages: Sequence[Stage]) -> tuple[Stage, ...]:
    numbered = []
    n = 0
    for stage in stages:
        steps = []
        for index, step in enumerate(stage.steps):
            n += 1
            steps.append(replace(step, n=n, index=index))
        numbered.append(replace(stage, steps=tuple(steps)))
    return tuple(numbered)


def make_plan(
    dockerfile: Dockerfile,
    args: Mapping[str, str],
    target: str = "",
    host: Platform | None = None,
) -> Plan:
    """Raises DockerfileError, Unsupported (both with the line) and NotFound (the target)."""
    host = host or platform.host()
    values = global_values(dockerfile, args, platform_args(host, target))
    drafts = _drafts(dockerfile)
    froms = [
        substitute(draft[0], values, dockerfile.directives.escape, dockerfile.file)
        for draft in drafts
        if isinstance(draft[0], From)
    ]
    names = [instruction.name or "" for instruction in froms]
    bases = [
        _base(instruction, names[:index], host, dockerfile.file)
        for index, instruction in enumerate(froms)
    ]
    origins = [
        [_origin(instruction, index, names, dockerfile.file) for instruction in draft]
        for index, draft in enumerate(drafts)
    ]
    needed = _needed(_target(target, names), bases, origins)
    stages: list[Stage] = []
    n = 0
    for index in needed:
        for instruction in drafts[index]:
            check(instruction, dockerfile.file)
            if "$" not in instruction.source:
                # A quote that is not closed, a port that is none: no value could mend it.
                substitute(instruction, {}, dockerfile.directives.escape, dockerfile.file)
        stages.append(
            Stage(
                index,
                names[index],
                bases[index],
                tuple(
                    Step(n + position + 1, index, position, instruction, origin)
                    for position, (instruction, origin) in enumerate(
                        zip(drafts[index], origins[index], strict=True)
                    )
                ),
            )
        )
        n += len(drafts[index])
    first = next(n for n, one in enumerate(dockerfile.instructions) if isinstance(one, From))
    return Plan(
        tuple(stages),
        values,
        dockerfile.directives.escape,
        dockerfile.file,
        tuple(one.text for one in dockerfile.instructions[:first]),
        tuple(names),
    )


def _drafts(dockerfile: Dockerfile) -> list[list[Instruction]]:
    drafts: list[list[Instruction]] = []
    for instruction in dockerfile.instructions:
        if isinstance(instruction, From):
            drafts.append([instruction])
        elif drafts:
            drafts[-1].append(instruction)
    return drafts


def _base(instruction: From, earlier: Sequence[str], host: Platform, file: str) -> int | str | None:
    if not instruction.image:
        raise error_at(
            instruction,
            "FROM has no image: its variable is empty",
            hint="give the build argument, or a default with ARG before FROM",
            file=file,
        )
    if instruction.platform:
        try:
            wanted = Platform.parse(instruction.platform)
        except InvalidInput as error:
            raise error_at(instruction, error.message, hint=error.hint, file=file) from error
        if not platform.matches(wanted, host):
            raise unsupported(
                instruction,
                f"building for {wanted} on {host}",
                f"leave --platform away, or write --platform={host}",
                file,
            )
    found = _latest(instruction.image.lower(), earlier)
    if found is not None:
        return found
    if instruction.image == SCRATCH:
        return None
    try:
        Reference.parse(instruction.image)
    except InvalidReference as error:
        raise error_at(instruction, error.message, hint=error.hint, file=file) from error
    return instruction.image


def _origin(
    instruction: Instruction, stage: int, names: Sequence[str], file: str
) -> int | str | None:
    if not isinstance(instruction, Copy) or not instruction.from_:
        return None
    name = instruction.from_
    found = _latest(name.lower(), names[:stage])
    if found is not None:
        return found
    if name.isdecimal():
        if int(name) < stage:
            return int(name)
        raise error_at(
            instruction,
            f"there is no stage {name} before this one",
            hint="stages count from 0; only earlier ones can be copied from",
            file=file,
        )
    if name.lower() in names[stage:]:
        raise error_at(
            instruction,
            f"the stage {name} comes too late to copy from",
            hint="move that stage above this one",
            file=file,
        )
    if name == SCRATCH:
        raise error_at(instruction, "scratch has no files to copy", file=file)
    return name


def _latest(name: str, names: Sequence[str]) -> int | None:
    """Of several stages with one name the last before here counts, as in Docker."""
    return next((i for i in range(len(names) - 1, -1, -1) if names[i] and names[i] == name), None)


def _target(target: str, names: Sequence[str]) -> int:
    if not target:
        return len(names) - 1
    found = _latest(target.lower(), names)
    if found is not None:
        return found
    if target.isdecimal() and int(target) < len(names):
        return int(target)
    known = ", ".join(name for name in names if name)
    raise NotFound(
        f"the Dockerfile has no stage {target}",
        hint=f"it has {known}" if known else "name a stage with FROM image AS name",
        target=target,
        field="target",
    )


def _needed(
    target: int,
    bases: Sequence[int | str | None],
    origins: Sequence[Sequence[int | str | None]],
) -> list[int]:
    """Ascending: a stage needs earlier ones only, so that is an order to build in."""
    needed: set[int] = set()
    waiting = [target]
    while waiting:
        stage = waiting.pop()
        if stage not in needed:
            needed.add(stage)
            waiting += [need for need in (bases[stage], *origins[stage]) if isinstance(need, int)]
    return sorted(needed)
