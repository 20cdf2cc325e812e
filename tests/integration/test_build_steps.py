"""RUN, metadata, ARG scopes and the image that comes out: on a real runtime."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from engine.build.ports import LayerProgress
from engine.errors import DockerfileError, InvalidInput, RegistryNotFound, StepFailed, Unsupported
from engine.oci import media_types
from engine.oci.image import ContainerConfig, ImageConfig
from tests.builder import BASE_EPOCH, Builder, builder

__all__ = ["builder"]


def test_run_in_both_forms(builder: Builder) -> None:
    built = builder.build(
        "FROM base\nRUN echo shell $((1+1)) > /a\n"
        'RUN ["/bin/sh","-c","echo $0 > /b","exec"]\nSHELL ["/bin/sh","-xc"]\nRUN echo traced\n'
    )
    tree = builder.tree(built)
    assert tree.text("a") == "shell 2\n"
    assert tree.text("b") == "exec\n"
    assert (built.log.said(1), built.log.said(2)) == ("traced\n", "+ echo traced\n")
    assert built.states == ["cached", "built", "built", "built", "built"]
    assert [entry.created_by for entry in built.result.image_config.history[1:]] == [
        "RUN /bin/sh -c echo shell $((1+1)) > /a",
        "RUN /bin/sh -c echo $0 > /b exec",
        'SHELL ["/bin/sh", "-xc"]',
        "RUN /bin/sh -xc echo traced",
    ]


def test_run_heredocs(builder: Builder) -> None:
    built = builder.build(
        "FROM base\nRUN <<EOF\necho one > /a\necho two >> /a\nEOF\n"
        "RUN cat > /b <<X && cat > /c <<Y\nb\nX\nc\nY\n"
        "RUN <<EOF\n#!/bin/busybox sh\necho $0 > /d\nEOF\n"
    )
    tree = builder.tree(built)
    assert tree.text("a") == "one\ntwo\n"
    assert (tree.text("b"), tree.text("c")) == ("b\n", "c\n")
    assert tree.text("d") == "/dev/pipes/script\n"


def test_environment_user_and_folder(builder: Builder) -> None:
    built = builder.build(
        "FROM base\nARG A=arg B=arg C\nENV B=env PATH=/bin:/x\nWORKDIR /w\nRUN env | sort > /env\n"
        "RUN chown app /w\nUSER app\nRUN id -u > id; id -g >> id; pwd >> id; echo $HOME >> id\n",
        args={"C": "c", "HTTP_PROXY": "proxy:1"},
    )
    tree = builder.tree(built)
    lines = tree.text("env").splitlines()
    assert {"A=arg", "B=env", "C=c", "PATH=/bin:/x", "HOME=/root", "HTTP_PROXY=proxy:1"} <= set(
        lines
    )
    assert tree.text("w/id").splitlines() == ["1000", "1000", "/w", "/home/app"]
    assert (tree / "w/id").stat().st_uid == 1000
    assert built.config.env == ("B=env", "PATH=/bin:/x")
    history = "\n".join(entry.created_by or "" for entry in built.result.image_config.history)
    assert "proxy" not in history
    assert "RUN |2 A=arg C=c /bin/sh -c env | sort > /env" in history


def test_nothing_of_ours_is_left_in_the_layer(builder: Builder) -> None:
    def fill(root: Path) -> None:
        (root / "bin").mkdir()
        (root / "bin/sh").write_bytes(Path("/bin/busybox").read_bytes())
        (root / "bin/sh").chmod(0o755)

    builder.images.known["bare"] = builder.make_image(fill)
    built = builder.build(
        "FROM bare\nRUN true\nRUN cat /etc/hosts > /seen\nRUN echo x >> /etc/hosts\n"
        "FROM base\nRUN true\nCOPY --from=0 /seen /etc/seen\n"
    )
    assert len(built.result.layers) == 2
    names = builder.tree(
        builder.build("FROM bare\nRUN true\nRUN cat /etc/hosts > /seen\nRUN echo x >> /etc/hosts\n")
    ).names()
    assert names == ["bin", "bin/sh", "seen"]
    assert "localhost" in builder.tree(built).text("etc/seen")


def test_a_run_that_changes_nothing_makes_no_layer(builder: Builder) -> None:
    built = builder.build("FROM base\nRUN true\nRUN rm -f /nothing\nRUN cat /etc/passwd\n")
    assert len(built.result.layers) == 1
    assert [entry.empty_layer for entry in built.result.image_config.history] == [
        False,
        True,
        True,
        True,
    ]


def test_removed_files_are_gone(builder: Builder) -> None:
    built = builder.build("FROM base\nRUN rm -r /home /etc/group && mkdir /home\n")
    tree = builder.tree(built)
    assert tree.names("home") == []
    assert "group" not in tree.names("etc")


def test_a_failing_step_says_all_and_keeps_its_files(builder: Builder) -> None:
    text = "FROM base\nRUN echo one\nRUN echo made > /made && \\\n  sh -c 'exit 3'\nRUN never\n"
    with pytest.raises(StepFailed) as caught:
        builder.build(text, build_id="77")
    context = caught.value.context
    assert (context["code"], context["line"], context["end_line"]) == (3, 3, 4)
    assert context["source"] == "RUN echo made > /made && \\\n  sh -c 'exit 3'"
    assert context["snapshot"] == "build-77-3"
    assert (builder.snapshots.upper("build-77-3") / "made").read_text() == "made\n"
    assert builder.log.states == ["cached", "built", "failed"]
    # The next build starts where this one broke.
    fixed = builder.build(text.replace("exit 3", "exit 0").replace("RUN never\n", ""))
    assert fixed.states == ["cached", "cached", "built"]
    builder.snapshots.remove("build-77-3")


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("RUN nope", 127),
        ('RUN ["/nope"]', 127),
        ("RUN sh -c 'kill -9 $$'; exit $?", 137),
        ("RUN exit 42", 42),
    ],
)
def test_exit_codes(builder: Builder, line: str, code: int) -> None:
    with pytest.raises(StepFailed) as caught:
        builder.build(f"FROM base\n{line}\n")
    assert caught.value.context["code"] == code
    assert caught.value.hint
    builder.snapshots.remove(str(caught.value.context["snapshot"]))


def test_an_unknown_user_names_the_line(builder: Builder) -> None:
    with pytest.raises(InvalidInput, match="nobody-here") as caught:
        builder.build("FROM base\nUSER nobody-here\nRUN true\n")
    assert caught.value.context["line"] == 3


def test_stages_only_as_needed(builder: Builder) -> None:
    text = (
        "FROM base AS one\nRUN echo one > /one\nFROM base AS two\nRUN false\n"
        "FROM one AS three\nRUN cat /one\n"
    )
    assert builder.build(text, target="one").states == ["cached", "built"]
    whole = builder.build(text)
    assert whole.states == ["cached", "cached", "cached", "built"]
    assert whole.log.output == "one\n"
    assert [step["stage"] for step in whole.log.of("plan")[0]["steps"]] == [
        "one",
        "one",
        "three",
        "three",
    ]


def test_arguments_of_a_stage_go_to_those_built_from_it(builder: Builder) -> None:
    built = builder.build(
        "ARG V=global\nFROM base AS a\nARG V W=w\nRUN echo $V $W\n"
        "FROM a\nRUN echo $V $W\nFROM a AS b\nRUN echo again $W\nFROM base\n"
        "RUN echo [$V]\nCOPY --from=1 /bin/sh /x\nCOPY --from=b /bin/sh /y\n"
    )
    assert built.log.output == "global w\nglobal w\nagain w\n[]\n"


def test_the_image_is_what_the_specification_says(builder: Builder) -> None:
    built = builder.build(
        "FROM base\nMAINTAINER me\nENV A=1\nEXPOSE 80\nVOLUME /v\nUSER app\n"
        'RUN true\nENTRYPOINT ["a"]\nCMD ["b"]\nLABEL x=y\nSTOPSIGNAL SIGINT\n',
        labels={"built.by": "test"},
    )
    manifest = builder.manifest(built)
    assert manifest.media_type == media_types.OCI_MANIFEST
    assert manifest.config == built.result.config
    raw = builder.content.read(manifest.config.digest)
    image = ImageConfig.from_json(raw)
    assert image == built.result.image_config
    assert image.author == "me"
    assert image.config.entrypoint == ("a",)
    assert image.config.exposed_ports == ("80/tcp",)
    assert dict(image.config.labels) == {"x": "y", "built.by": "test"}
    assert json.loads(raw)["config"]["Volumes"] == {"/v": {}}
    filled = [entry for entry in image.history if not entry.empty_layer]
    assert len(filled) == len(manifest.layers) == len(image.rootfs.diff_ids)
    for layer in manifest.layers:
        assert builder.content.info(layer.digest).size == layer.size
    assert built.result.size == (
        built.result.manifest.size
        + built.result.config.size
        + sum(layer.size for layer in manifest.layers)
    )


def test_layers_of_docker_images_become_oci_ones(builder: Builder) -> None:
    base = builder.images.known["base"]
    builder.images.known["docker"] = replace(
        base,
        layers=tuple(
            replace(layer, media_type=media_types.DOCKER_LAYER_GZIP) for layer in base.layers
        ),
    )
    built = builder.build("FROM docker\nRUN touch /x\n")
    assert {layer.media_type for layer in builder.manifest(built).layers} == {
        media_types.OCI_LAYER_GZIP
    }


def test_a_base_without_history_keeps_count(builder: Builder) -> None:
    base = builder.images.known["base"]
    builder.images.known["bare"] = replace(
        base, image_config=replace(base.image_config, history=())
    )
    built = builder.build("FROM bare\nENV A=1\nRUN touch /x\n")
    assert [entry.empty_layer for entry in built.result.image_config.history] == [
        False,
        True,
        False,
    ]


def test_onbuild_triggers_run_right_after_from_and_once(builder: Builder) -> None:
    base = builder.build(
        "FROM base\nONBUILD COPY a /a\nONBUILD RUN cat /a; echo $X\nONBUILD ENV Y=$X-y\n"
    )
    assert base.config.on_build == (
        "COPY a /a",
        "RUN cat /a; echo $X",
        "ENV Y=$X-y",
    )
    builder.images.known["onbuild"] = builder.as_image(base)
    builder.put("a", "from a\n")
    built = builder.build("FROM onbuild\nRUN echo own $Y\n")
    assert built.states[1:] == ["built"] * 4
    assert built.log.output == "from a\n\nown -y\n"
    assert built.config.on_build == ()
    plans = built.log.of("plan")
    assert [len(plan["steps"]) for plan in plans] == [2, 5]
    assert [step["n"] for step in plans[1]["steps"] if step.get("trigger")] == [2, 3, 4]
    assert set(builder.build("FROM onbuild\nRUN echo own $Y\n").states) == {"cached"}
    staged = builder.build("FROM base AS b\nONBUILD RUN echo hooked\nFROM b\n")
    assert staged.log.output == "hooked\n"


def test_an_onbuild_trigger_that_cannot_be_read_names_from(builder: Builder) -> None:
    builder.images.known["trigger"] = builder.make_image(
        lambda root: (root / "x").touch(), ContainerConfig(on_build=("RUNN true",))
    )
    with pytest.raises(DockerfileError, match="RUNN") as caught:
        builder.build("ARG X\nFROM trigger\n")
    assert caught.value.context["line"] == 2
    builder.images.known["later"] = builder.make_image(
        lambda root: (root / "x").touch(), ContainerConfig(on_build=("ADD http://a/b /",))
    )
    with pytest.raises(Unsupported) as refused:
        builder.build("FROM later\n")
    assert refused.value.context["line"] == 1


def test_a_health_check_is_in_the_config(builder: Builder) -> None:
    line = "HEALTHCHECK --interval=5s --timeout=1m --start-period=2s --retries=4 CMD true"
    built = builder.build(f"FROM base\n{line}\n")
    check = built.config.healthcheck
    assert check is not None
    assert check.to_dict() == {
        "Test": ["CMD-SHELL", "true"],
        "Interval": 5 * 10**9,
        "Timeout": 60 * 10**9,
        "StartPeriod": 2 * 10**9,
        "Retries": 4,
    }
    assert built.result.image_config.history[-1].created_by == line
    none = builder.build(f"FROM base\n{line}\nHEALTHCHECK NONE\n")
    assert none.config.healthcheck is not None
    assert none.config.healthcheck.test == ("NONE",)


def test_an_unknown_image_names_the_line_and_pull_is_asked_for(builder: Builder) -> None:
    with pytest.raises(RegistryNotFound) as caught:
        builder.build("ARG X=1\nFROM nope:$X\n")
    assert caught.value.context["line"] == 2
    assert caught.value.message == "no image nope:1"
    builder.build("FROM base\nCOPY --from=base /bin/sh /x\n", pull=True)
    assert builder.images.pulled == ["base"]


def test_pulls_are_told(builder: Builder) -> None:
    builder.images.progress = (
        LayerProgress("sha256:a", 1, 2, "downloading"),
        LayerProgress("sha256:a", 2, 2, "done"),
    )
    built = builder.build("FROM base\n")
    assert built.log.of("pull")[-1] == {
        "t": "pull",
        "n": 1,
        "layers": [{"digest": "sha256:a", "current": 2, "total": 2, "kind": "done"}],
    }
    assert built.states == ["built"]


def test_source_date_epoch_makes_builds_repeat(builder: Builder) -> None:
    builder.put("src/f", "x")
    text = (
        "FROM base\nWORKDIR /made\nCOPY src .\nRUN date > /dev/null; echo x > /y; mkdir /z\n"
        "RUN touch -d @1000000000 /old\nENV A=1\n"
    )
    args = {"SOURCE_DATE_EPOCH": str(BASE_EPOCH)}
    first = builder.build(text, args=args, no_cache=True)
    second = builder.build(text, args=args, no_cache=True)
    assert first.result.manifest == second.result.manifest
    assert first.result.image_config.created == "2023-11-14T22:13:20Z"
    tree = builder.tree(first)
    assert (tree / "y").stat().st_mtime == (tree / "z").stat().st_mtime == BASE_EPOCH
    assert (tree / "old").stat().st_mtime == 1_000_000_000
    assert not first.log.of("warn")
    with pytest.raises(InvalidInput, match="SOURCE_DATE_EPOCH"):
        builder.build(text, args={"SOURCE_DATE_EPOCH": "yesterday"})


def test_warnings(builder: Builder) -> None:
    built = builder.build("FROM base\nENV A=1 \\\n\n  B=2\n", args={"TYPO": "1"})
    assert built.log.of("warn") == [
        {"t": "warn", "text": "an empty line inside a continuation", "line": 3, "end": 3},
        {
            "t": "warn",
            "text": "no ARG asks for the build argument TYPO",
            "line": 0,
            "end": 0,
            "arg": "TYPO",
        },
    ]
