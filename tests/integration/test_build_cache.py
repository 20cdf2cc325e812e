"""Which steps are taken from the cache, and what is said about those that are not."""

from __future__ import annotations

import os
import time

import pytest

from engine.build.digests import cache_dir
from tests.builder import Builder, builder

__all__ = ["builder"]

NODE = (
    "FROM base\nWORKDIR /app\nCOPY package.json /app\nRUN cp package.json installed\n"
    'COPY . /app\nEXPOSE 80\nCMD ["node","server.js"]\n'
)


@pytest.fixture
def app(builder: Builder) -> Builder:
    builder.put("package.json", '{"a": 1}')
    builder.put("server.js", "one")
    builder.put("lib/x.js", "x")
    return builder


def test_all_is_cached_and_gives_the_same_image(app: Builder) -> None:
    first = app.build(NODE)
    assert first.states == ["cached", *["built"] * 6]
    assert [first.log.reason(n)["why"] for n in (2, 3)] == ["first", "parent"]
    second = app.build(NODE)
    assert second.states == ["cached"] * 7
    assert second.image == first.image
    assert all(step.seconds == 0 and step.reason is None for step in second.result.steps)
    assert not [event for event in second.log.of("step") if event["state"] == "running"]


def test_a_changed_source_keeps_the_install_step(app: Builder) -> None:
    app.build(NODE)
    app.put("server.js", "two")
    app.put("new.js", "")
    (app.context / "lib/x.js").unlink()
    built = app.build(NODE)
    assert built.states == [*["cached"] * 4, "built", "built", "built"]
    assert built.log.reason(5) == {
        "why": "files",
        "detail": "lib/x.js was removed, and 2 more",
        "files": [
            {"path": "lib/x.js", "change": "removed"},
            {"path": "new.js", "change": "added"},
            {"path": "server.js", "change": "changed"},
        ],
    }
    assert built.log.reason(6) == {
        "why": "parent",
        "detail": "step 5 was built anew",
        "files": [],
    }
    assert app.tree(built).text("app/server.js") == "two"


def test_a_changed_package_runs_the_install_step_also_when_its_output_is_the_same(
    app: Builder,
) -> None:
    text = NODE.replace("cp package.json installed", "touch -d @1 installed")
    app.build(text)
    app.put("package.json", '{"a": 2}')
    built = app.build(text)
    assert built.states == ["cached", "cached", *["built"] * 5]
    assert built.log.reason(3)["detail"] == "package.json changed"
    assert built.log.reason(4)["why"] == "parent"


def test_times_do_not_matter_and_going_back_hits_again(app: Builder) -> None:
    first = app.build(NODE)
    os.utime(app.context / "server.js", (1, 1))
    assert app.build(NODE).image == first.image
    app.put("server.js", "two")
    assert app.build(NODE).image != first.image
    app.put("server.js", "one")
    assert app.build(NODE).image == first.image


def test_an_instruction_that_changes(app: Builder) -> None:
    app.build(NODE)
    built = app.build(NODE.replace("cp package.json", "cp -p package.json"))
    assert built.states == ["cached"] * 3 + ["built"] * 4
    assert built.log.reason(4) == {
        "why": "instruction",
        "detail": "was: RUN cp package.json installed",
        "files": [],
    }


def test_arguments_count_where_they_are_used(app: Builder) -> None:
    text = "FROM base\nARG V=1\nENV X=x\nCOPY server.js /\nRUN echo run\nENV Y=$V\n"
    app.build(text)
    assert set(app.build(text, args={"V": "1"}).states) == {"cached"}
    built = app.build(text, args={"V": "2"})
    assert built.states == ["cached", "cached", "cached", "cached", "built", "built"]
    assert built.log.reason(5) == {"why": "args", "detail": "changed: V", "files": []}
    assert built.config.env[-1] == "Y=2"
    assert "V=2" in (built.result.image_config.history[1].created_by or "")
    proxied = app.build(text, args={"V": "2", "HTTPS_PROXY": "p"})
    assert set(proxied.states) == {"cached"}


def test_a_changed_base(app: Builder) -> None:
    app.build(NODE)
    app.images.known["base"] = app.as_image(app.build("FROM base\nRUN touch /new\n"))
    built = app.build(NODE)
    assert built.states == ["built"] * 7
    assert built.log.reason(1)["why"] == "base"
    assert built.log.reason(2) == {"why": "parent", "detail": "step 1 was built anew", "files": []}


def test_no_cache(app: Builder) -> None:
    app.build(NODE)
    built = app.build(NODE, no_cache=True)
    assert built.states == ["cached", *["built"] * 6]
    assert {step.reason["why"] for step in built.result.steps if step.reason} == {"no-cache"}
    assert set(app.build(NODE).states) == {"cached"}


@pytest.mark.parametrize("what", ["blob", "snapshot"])
def test_what_is_gone_is_built_again(app: Builder, what: str) -> None:
    first = app.build(NODE)
    layer = first.result.layers[-1]
    if what == "blob":
        app.content.delete(layer.digest)
    else:
        app.snapshots.remove(first.result.image_config.rootfs.chain_id)
    built = app.build(NODE)
    # What comes out the same is what the metadata after it was made on.
    assert built.states == [*["cached"] * 4, "built", "cached", "cached"]
    assert built.log.reason(5)["detail"] == "its layer is no longer kept"
    assert app.content.has(built.result.layers[-1].digest)
    assert app.snapshots.exists(built.result.image_config.rootfs.chain_id)


def test_a_layer_is_never_put_on_another_than_it_was_made_on(builder: Builder) -> None:
    text = "FROM base\nRUN cat /proc/sys/kernel/random/uuid > /now\nRUN cat /now > /copy\n"
    first = builder.build(text)
    builder.content.delete(first.result.layers[1].digest)
    built = builder.build(text)
    assert built.states == ["cached", "built", "built"]
    tree = builder.tree(built)
    assert tree.text("now") == tree.text("copy")
    assert tree.text("now") != builder.tree(first).text("now")


def test_a_copy_is_made_again_on_what_came_out_otherwise(builder: Builder) -> None:
    text = (
        "FROM base AS make\nRUN touch -d @1 /out\nFROM base\n"
        "RUN cat /proc/sys/kernel/random/uuid > /now\nCOPY --from=make /out /out\n"
    )
    first = builder.build(text)
    builder.content.delete(first.result.layers[1].digest)
    built = builder.build(text)
    assert built.states == ["cached", "cached", "cached", "built", "built"]
    assert {"out", "now"} <= set(builder.tree(built).names())


def test_two_names_do_not_forget_each_other(app: Builder) -> None:
    app.build(NODE, position="a")
    assert set(app.build(NODE, position="b").states) == {"cached"}
    app.put("server.js", "two")
    assert app.build(NODE, position="a").log.reason(5)["detail"] == "server.js changed"
    app.put("server.js", "three")
    assert app.build(NODE, position="b").log.reason(5)["detail"] == "server.js changed"


def test_a_stage_rebuilt_with_the_same_output_still_hits(app: Builder) -> None:
    text = (
        "FROM base AS make\nARG V=1\nCOPY server.js /src\nRUN echo same > /out; touch -d @1 /out\n"
        "FROM base\nCOPY --from=make /out /out\nRUN cat /out > /copy\n"
    )
    app.build(text)
    cached = app.build(text)
    assert set(cached.states) == {"cached"}
    app.put("server.js", "two")
    built = app.build(text)
    assert built.states == ["cached", "cached", "built", "built", "cached", "cached", "cached"]
    assert built.image == cached.image
    changed = app.build(text.replace("echo same", "echo other"))
    assert changed.states[3:] == ["built", "cached", "built", "built"]
    assert changed.log.reason(6)["detail"] == "out changed"


def test_ten_thousand_files_are_not_read_again(builder: Builder) -> None:
    for n in range(2000):
        builder.put(f"d{n % 20}/f{n}", str(n))
    time.sleep(0.03)
    text = "FROM base\nCOPY . /app\n"
    builder.build(text)
    index = next(cache_dir(builder.config.builds_dir).glob("digests-*.json"))
    before = index.stat().st_mtime_ns
    assert set(builder.build(text).states) == {"cached"}
    assert index.stat().st_mtime_ns == before  # nothing new was learnt
    builder.put("d3/f3", "changed")
    built = builder.build(text)
    assert built.log.reason(2)["files"] == [{"path": "d3/f3", "change": "changed"}]
