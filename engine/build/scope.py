"""Which ARG has which value where: pure.

Build arguments beat defaults; a global ARG (before FROM) is seen by FROM lines only, until a stage
declares it again; ENV beats ARG; the predefined proxy arguments need no ARG, reach RUN, and are in
neither history nor cache keys unless a stage declares them. Leaves expansion to engine.dockerfile.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from engine.dockerfile import Dockerfile, substitute
from engine.dockerfile.instructions import Arg, From
from engine.oci.platform import Platform

PROXIES = frozenset(
    name
    for upper in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for name in (upper, upper.lower())
)
EPOCH = "SOURCE_DATE_EPOCH"


def platform_args(platform: Platform, target: str) -> dict[str, str]:
    """The arguments Docker predefines for FROM lines; stages must declare them to see them."""
    found = {"TARGETSTAGE": target or "default"}
    for side in ("TARGET", "BUILD"):
        found |= {
            f"{side}PLATFORM": str(platform),
            f"{side}OS": platform.os,
            f"{side}ARCH": platform.architecture,
            f"{side}VARIANT": platform.variant,
        }
    return found


def global_values(
    dockerfile: Dockerfile, args: Mapping[str, str], predefined: Mapping[str, str]
) -> dict[str, str]:
    """What FROM lines expand with: predefined and global ARGs, build arguments over defaults.

    Raises DockerfileError for a default that cannot be expanded.
    """
    values = {**predefined, **{name: args[name] for name in predefined if name in args}}
    for instruction in dockerfile.instructions:
        if isinstance(instruction, From):
            break
        if isinstance(instruction, Arg):
            arg = substitute(instruction, values, dockerfile.directives.escape, dockerfile.file)
            for name, default in arg.pairs:
                value = args.get(name, default)
                if value is not None:
                    values[name] = value
    return values


@dataclass(frozen=True, slots=True)
class Scope:
    """A stage's arguments at one point: `args` what was given to the build, `global_args` what
    ARG without a default falls back to, `declared` what the stage has declared so far."""

    args: Mapping[str, str]
    global_args: Mapping[str, str]
    declared: Mapping[str, str] = field(default_factory=dict)

    def declare(self, arg: Arg) -> Scope:
        """After an ARG whose defaults are expanded already."""
        values = {}
        for name, default in arg.pairs:
            value = self.args.get(name, self.global_args.get(name) if default is None else default)
            if value is not None:
                values[name] = value
        return replace(self, declared={**self.declared, **values})

    def values(self, env: Mapping[str, str]) -> dict[str, str]:
        """What an instruction expands with."""
        return {**self.declared, **env}

    def in_use(self, env: Mapping[str, str]) -> dict[str, str]:
        """What RUN's cache key and history depend on."""
        return {name: value for name, value in self.declared.items() if name not in env}

    def environment(self, env: Mapping[str, str]) -> dict[str, str]:
        """What a RUN step finds in its environment besides ENV."""
        proxies = {name: self.args[name] for name in sorted(PROXIES) if name in self.args}
        return {
            name: value for name, value in {**proxies, **self.declared}.items() if name not in env
        }


def unused_args(
    dockerfile: Dockerfile, args: Mapping[str, str], predefined: Mapping[str, str]
) -> Sequence[str]:
    """Build arguments no ARG asks for, sorted."""
    asked = {
        name
        for instruction in dockerfile.instructions
        if isinstance(instruction, Arg)
        for name, _ in instruction.pairs
    }
    return sorted(set(args) - asked - PROXIES - {EPOCH} - set(predefined))
