"""Cache keys, entries and reasons: pure."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from engine.build.cache import (
    CacheEntry,
    FileChange,
    Layer,
    Reason,
    StepTrace,
    base_key,
    compare_files,
    copy_key,
    metadata_key,
    run_key,
    why_missed,
)
from engine.oci.digest import Digest
from engine.oci.image import Descriptor

BASE = base_key("sha256:" + "a" * 64)


def test_every_part_of_a_key_counts() -> None:
    keys = {
        BASE,
        base_key(None),
        base_key("sha256:" + "a" * 64, epoch=1),
        metadata_key(BASE, "ENV", "ENV A=1"),
        metadata_key(BASE, "LABEL", "ENV A=1"),
        metadata_key(base_key(None), "ENV", "ENV A=1"),
        run_key(BASE, ["a", "b"], {}, {}),
        run_key(BASE, ["a b"], {}, {}),
        run_key(BASE, ["a", "b"], {"X": "1"}, {}),
        run_key(BASE, ["a", "b"], {}, {"network": "none"}),
        copy_key(BASE, "COPY", "/", [("f", "1")], {}),
        copy_key(BASE, "ADD", "/", [("f", "1")], {}),
        copy_key(BASE, "COPY", "/", [("f", "2")], {}),
        copy_key(BASE, "COPY", "/f", [("f", "1")], {}),
        copy_key(BASE, "COPY", "/", [("f", "1")], {"chown": "1"}),
        copy_key(BASE, "COPY", "/", [("f", "1"), ("g", "1")], {}),
    }
    assert len(keys) == 16
    assert all(Digest(key) for key in keys)


def test_keys_do_not_depend_on_order_of_arguments() -> None:
    assert run_key(BASE, ["a"], {"X": "1", "Y": "2"}, {}) == run_key(
        BASE, ["a"], {"Y": "2", "X": "1"}, {}
    )


def test_entries_survive_json() -> None:
    layer = Layer(Descriptor("type", Digest.of(b"x"), 3), Digest.of(b"y"))
    entry = CacheEntry(BASE, layer=layer, chain="c", created="t", seconds=1.5, files="f", alias="a")
    assert CacheEntry.from_json(json.loads(json.dumps(entry.to_json()))) == entry
    trace = CacheEntry.of_trace("tag", {"0:1": StepTrace("k", "p", "RUN x", {"A": "1"}, "f", "b")})
    assert CacheEntry.from_json(json.loads(json.dumps(trace.to_json()))) == trace
    assert trace.position == "tag"
    assert trace.key != CacheEntry.of_trace("other", {}).key


STEP = StepTrace(key="k", parent="p", operation="RUN make", args={"A": "1", "B": "2"}, files="1")


def why(step: StepTrace, last: StepTrace | None, changed: list[FileChange] | None = None) -> Reason:
    return why_missed(step, last, no_cache=False, first_miss=None, changed=changed or [])


@pytest.mark.parametrize(
    ("last", "reason"),
    [
        (None, "first"),
        (replace(STEP, operation="RUN other", files="2"), "instruction"),
        (replace(STEP, base="b"), "base"),
        (replace(STEP, parent="q", files="2"), "parent"),
        (replace(STEP, files="2", args={}), "files"),
        (replace(STEP, args={"A": "2", "B": "2"}), "args"),
        (STEP, "first"),
    ],
)
def test_reasons(last: StepTrace | None, reason: str) -> None:
    assert why(STEP, last).why == reason


def test_reasons_in_words() -> None:
    assert why(STEP, replace(STEP, args={"A": "0", "C": ""})).detail == "changed: A, B, C"
    assert why(STEP, replace(STEP, operation="RUN other")).detail == "was: RUN other"
    assert why(STEP, STEP).detail == "its layer is no longer kept"
    first = FileChange("server.js", "changed")
    assert why(STEP, replace(STEP, files="2"), [first]).detail == "server.js changed"
    many = [FileChange(f"f{n}", "added") for n in range(30)]
    reason = why(STEP, replace(STEP, files="2"), many)
    assert reason.detail == "f0 was added, and 29 more"
    assert len(reason.to_json()["files"]) == 10


def test_a_step_above_and_no_cache_come_first() -> None:
    above = why_missed(STEP, None, no_cache=False, first_miss=3, changed=[])
    assert (above.why, above.detail) == ("parent", "step 3 was built anew")
    assert why_missed(STEP, STEP, no_cache=True, first_miss=3, changed=[]).why == "no-cache"


def test_files_are_compared_by_what_counts() -> None:
    before = {".": "d", "a": "1", "b": "1", "gone": "1"}
    now = {".": "d", "a": "1", "b": "2", "new": "1"}
    assert compare_files(before, now) == [
        FileChange("b", "changed"),
        FileChange("gone", "removed"),
        FileChange("new", "added"),
    ]
