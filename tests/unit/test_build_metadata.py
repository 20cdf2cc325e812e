"""What ENV, CMD, EXPOSE and the others do to an image's config."""

from __future__ import annotations

import pytest

from engine.build.metadata import Metadata, apply, working_dir
from engine.build.scope import Scope, global_values, platform_args, unused_args
from engine.dockerfile import parse, substitute
from engine.dockerfile.instructions import Arg
from engine.errors import DockerfileError
from engine.oci.image import ContainerConfig
from engine.oci.platform import Platform


def after(text: str, config: ContainerConfig | None = None) -> tuple[ContainerConfig, list[str]]:
    config = config or ContainerConfig()
    ours = False
    texts = []
    for written in parse(f"FROM x\n{text}").instructions[1:]:
        values = dict(entry.partition("=")[::2] for entry in config.env)
        instruction = substitute(written, values)
        assert isinstance(instruction, Metadata)
        change = apply(instruction, config, cmd_is_ours=ours)
        ours = ours or instruction.keyword == "CMD"
        config = change.config
        texts.append(change.text)
    return config, texts


def test_env_keeps_places_and_sees_what_was_before() -> None:
    config, texts = after("ENV A=1 B=2\nENV A=$B C=$A\nENV D e f\n")
    assert config.env == ("A=2", "B=2", "C=1", "D=e f")
    assert texts == ["ENV A=1 B=2", "ENV A=2 C=1", 'ENV D="e f"']


def test_cmd_and_entrypoint() -> None:
    shell = ("/bin/sh", "-c")
    assert after("CMD a b")[0].cmd == (*shell, "a b")
    assert after('CMD ["a","b"]')[0].cmd == ("a", "b")
    base = ContainerConfig(cmd=("inherited",))
    assert after("ENTRYPOINT x", base)[0].cmd is None
    config, _ = after('CMD ["mine"]\nENTRYPOINT ["x"]', base)
    assert (config.entrypoint, config.cmd) == (("x",), ("mine",))


def test_shell_is_used_by_what_follows() -> None:
    config, texts = after('SHELL ["/bin/bash","-euc"]\nCMD a')
    assert config.cmd == ("/bin/bash", "-euc", "a")
    assert texts[1] == 'CMD ["/bin/bash", "-euc", "a"]'


def test_expose_volume_user_label_signal() -> None:
    config, texts = after(
        "EXPOSE 443 80/udp 9-10\nVOLUME /data /b/\nUSER app:1\nLABEL a=b c='d e'\nSTOPSIGNAL 9\n"
    )
    assert config.exposed_ports == ("9/tcp", "10/tcp", "80/udp", "443/tcp")
    assert config.volumes == ("/b", "/data")
    assert config.user == "app:1"
    assert dict(config.labels) == {"a": "b", "c": "d e"}
    assert config.stop_signal == "9"
    assert texts[0] == "EXPOSE 443/tcp 80/udp 9/tcp 10/tcp"


@pytest.mark.parametrize("text", ["STOPSIGNAL 'a b'", "VOLUME ['']", "USER $NOPE", "ENV $NOPE=1"])
def test_what_makes_no_sense_names_its_line(text: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        after(f"ENV A=1\n{text.replace(chr(39) * 2, chr(34) * 2)}")
    assert caught.value.line == 3


def test_working_dir() -> None:
    assert working_dir("", "app") == "/app"
    assert working_dir("/app", "src/../lib/") == "/app/lib"
    assert working_dir("/app", "/x//y/.") == "/x/y"
    assert working_dir("/app", "../../..") == "/"


DOCKERFILE = "ARG V=1\nARG W\nFROM x\nARG V\nARG W=w\nARG N\nARG U=$V-u\n"


def scope_after(args: dict[str, str], env: dict[str, str] | None = None) -> Scope:
    dockerfile = parse(DOCKERFILE)
    values = global_values(dockerfile, args, platform_args(Platform("arm64"), ""))
    scope = Scope(args, values)
    for written in dockerfile.instructions[3:]:
        arg = substitute(written, scope.values(env or {}))
        assert isinstance(arg, Arg)
        scope = scope.declare(arg)
    return scope


def test_arguments_of_a_stage() -> None:
    assert scope_after({}).declared == {"V": "1", "W": "w", "U": "1-u"}
    assert scope_after({"V": "2", "N": "n"}).declared == {
        "V": "2",
        "W": "w",
        "N": "n",
        "U": "2-u",
    }


def test_env_beats_arg() -> None:
    scope = scope_after({"V": "2"}, {"V": "env"})
    assert scope.values({"V": "env"})["V"] == "env"
    assert "V" not in scope.in_use({"V": "env"})
    assert scope.declared["U"] == "env-u"


def test_proxies_reach_run_but_no_key() -> None:
    scope = Scope({"HTTP_PROXY": "p", "no_proxy": "n", "X": "x"}, {})
    assert scope.environment({}) == {"HTTP_PROXY": "p", "no_proxy": "n"}
    assert scope.in_use({}) == {}
    declared = scope.declare(next(i for i in parse("ARG HTTP_PROXY\nFROM x").instructions))  # type: ignore[arg-type]
    assert declared.in_use({}) == {"HTTP_PROXY": "p"}


def test_predefined_platform_arguments_must_be_declared() -> None:
    scope = Scope({}, platform_args(Platform("arm64"), ""))
    assert scope.values({}) == {}
    arg = parse("FROM x\nARG TARGETARCH").instructions[1]
    assert isinstance(arg, Arg)
    assert scope.declare(arg).values({}) == {"TARGETARCH": "arm64"}


def test_unused_arguments() -> None:
    args = {"V": "", "Z": "", "A": "", "HTTP_PROXY": "", "SOURCE_DATE_EPOCH": "1"}
    assert unused_args(parse(DOCKERFILE), args, {}) == ["A", "Z"]
