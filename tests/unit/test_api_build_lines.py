"""A build's events in moby's words. What is expected here came from Debian's dockerd 20.10, asked
for the same builds."""

from __future__ import annotations

import re
from typing import Any

from engine.api.build_lines import ClassicLines

IMAGE = f"sha256:{'8c579f8732c7':0<64}"


def plan(*texts: str, before: tuple[str, ...] = (), triggers: tuple[int, ...] = ()) -> Any:
    steps = [
        {"n": n, "stage": "0", "text": text, "line": n, "end": n, "trigger": n in triggers}
        for n, text in enumerate(texts, 1)
    ]
    return {"t": "plan", "steps": steps, "before": list(before)}


def step(n: int, state: str, id: str = "") -> Any:
    return {"t": "step", "n": n, "state": state, "ms": 1, "id": id}


def out(n: int, text: str, stream: int = 1) -> Any:
    return {"t": "out", "n": n, "s": stream, "d": text}


DONE = {"t": "done", "image": IMAGE, "size": 1, "ms": 1}


def said(words: ClassicLines, *events: Any) -> str:
    """The streams put together, ids of containers as C; other lines as they are."""
    lines = [line for event in events for line in words.feed(event)]
    text = "".join(line.get("stream", f"{line}\n") for line in lines)
    return re.sub(r"(Running in|intermediate container) [0-9a-f]{12}", r"\1 C", text)


def test_a_build_with_all_sorts_of_steps() -> None:
    text = said(
        ClassicLines(["x:1", "y:latest"]),
        plan("FROM busybox:$V", "ENV A=b", "COPY h /h", "RUN echo hi", before=("ARG V=latest",)),
        {"t": "warn", "text": "no ARG", "line": 0, "end": 0, "arg": "FOO"},
        step(1, "cached", "7816ff92d141"),
        step(2, "built", "2cfc72e1a2d8"),
        step(3, "built", "2988355a39bd"),
        step(4, "running"),
        out(4, "hi\n"),
        out(4, "err\n", 2),
        step(4, "built", "ffffffffffff"),
        DONE,
    )
    assert text == (
        "Step 1/5 : ARG V=latest\n"
        "Step 2/5 : FROM busybox:$V\n"
        " ---> 7816ff92d141\n"
        "Step 3/5 : ENV A=b\n"
        " ---> Running in C\n"
        "Removing intermediate container C\n"
        " ---> 2cfc72e1a2d8\n"
        "Step 4/5 : COPY h /h\n"
        " ---> 2988355a39bd\n"
        "Step 5/5 : RUN echo hi\n"
        " ---> Running in C\n"
        "hi\n"
        "\x1b[91merr\n\x1b[0m"
        "Removing intermediate container C\n"
        " ---> 8c579f8732c7\n"
        f"{{'aux': {{'ID': '{IMAGE}'}}}}\n"
        "[Warning] One or more build-args [FOO] were not consumed\n"
        "Successfully built 8c579f8732c7\n"
        "Successfully tagged x:1\n"
        "Successfully tagged y:latest\n"
    )


def test_a_cached_build_and_one_that_keeps_its_containers() -> None:
    events = [plan("FROM scratch", "RUN a"), step(1, "cached"), step(2, "cached", "aaaaaaaaaaaa")]
    assert said(ClassicLines(), *events, DONE).startswith(
        "Step 1/2 : FROM scratch\n ---> \nStep 2/2 : RUN a\n ---> Using cache\n ---> 8c579f8732c7\n"
    )
    kept = said(ClassicLines(remove=False), *events[:2], step(2, "running"), step(2, "built"), DONE)
    assert "Running in C" in kept
    assert "Removing" not in kept


def test_triggers_of_a_base_have_no_numbers() -> None:
    text = said(
        ClassicLines(),
        plan("FROM ob", "RUN echo mine"),
        step(1, "cached", "db4e3a88ff14"),
        plan("FROM ob", "RUN echo trig", "COPY a /a", "RUN echo mine", triggers=(2, 3)),
        step(2, "running"),
        out(2, "trig\n"),
        step(2, "built", "111111111111"),
        step(3, "built", "96a33c067eb4"),
        step(4, "cached", "222222222222"),
        DONE,
    )
    assert text.startswith(
        "Step 1/2 : FROM ob\n"
        "# Executing 2 build triggers\n"
        " ---> Running in C\n"
        "trig\n"
        "Removing intermediate container C\n"
        " ---> 96a33c067eb4\n"
        "Step 2/2 : RUN echo mine\n"
        " ---> Using cache\n"
        " ---> 8c579f8732c7\n"
    )


FAILED = {
    "t": "failed",
    "error": {
        "id": "step-failed",
        "message": "the command ended with code 1",
        "context": {"code": 1, "command": "/bin/sh -c false", "line": 2},
    },
}


def test_a_step_that_fails() -> None:
    sentence = "The command '/bin/sh -c false' returned a non-zero code: 1"
    events = [plan("FROM a", "RUN false"), step(1, "cached", "7816ff92d141"), step(2, "running")]
    words = ClassicLines(force_remove=True)
    lines = [line for event in (*events, step(2, "failed"), FAILED) for line in words.feed(event)]
    assert lines[-1] == {"errorDetail": {"code": 1, "message": sentence}, "error": sentence}
    assert "Removing intermediate container" in lines[-2]["stream"]


def test_quiet_says_the_id_or_everything_that_led_to_the_failure() -> None:
    events = [plan("FROM a", "RUN x"), step(1, "cached", "7816ff92d141"), step(2, "cached")]
    quiet = ClassicLines(quiet=True)
    assert [line for event in (*events, DONE) for line in quiet.feed(event)] == [
        {"stream": f"{IMAGE}\n"}
    ]
    quiet = ClassicLines(quiet=True)
    held = [quiet.feed(event) for event in (*events, FAILED)]
    assert held[:3] == [[], [], []]
    assert held[3][0] == {"stream": "Step 1/2 : FROM a"}
    assert held[3][-1]["errorDetail"]["code"] == 1


def test_what_moby_has_a_sentence_for_is_said_in_it_and_the_rest_with_its_line() -> None:
    def error(id: str, message: str, **context: object) -> str:
        event = {"t": "failed", "error": {"id": id, "message": message, "context": context}}
        return str(ClassicLines().feed(event)[-1]["error"])

    assert error("build-context", "x", absent="nothere", source="COPY nothere /x", line=2) == (
        "COPY failed: file not found in build context or excluded by .dockerignore: "
        "stat nothere: file does not exist"
    )
    assert error("registry", "no such tag", line=3, file="D") == "D:3: no such tag"


def test_a_pull_is_told_as_docker_pull_tells_it() -> None:
    layer = {"digest": f"sha256:{'ab' * 32}", "current": 5, "total": 10, "kind": "downloading"}
    words = ClassicLines()
    words.feed(plan("FROM a"))
    words.feed(step(1, "running"))
    lines = words.feed({"t": "pull", "n": 1, "layers": [layer]})
    assert [line["status"] for line in lines] == ["Pulling fs layer", "Downloading"]
    assert lines[-1]["id"] == "abababababab"
    assert lines[-1]["progressDetail"] == {"current": 5, "total": 10}
