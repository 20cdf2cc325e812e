"""What is measured: each is one docker command (or a line of sh), timed from outside.

In the lines `$DIR` is a folder of the engine's own and `$PORT` a free port.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Measure:
    """`once` prepares, `before` and `after` surround every repetition; only `timed` counts.

    `wanted` is the ratio Quayside / Docker that is asked for, None where none is.
    """

    name: str
    timed: str
    wanted: float | None = None
    once: str = "true"
    before: str = "true"
    after: str = "true"
    end: str = "true"
    times: int = 15


def measures(quick: bool) -> tuple[Measure, ...]:
    """`quick`: the same commands on small amounts, a few times."""
    files, lines, many, at_once = (100, 2_000, 10, 4) if quick else (10_000, 200_000, 1_000, 20)

    def times(count: int) -> int:
        return 2 if quick else count

    return (
        Measure("run --rm true", "docker run --rm alpine true", 0.5, times=times(20)),
        Measure(
            "run --rm -p true",
            "docker run --rm -p $PORT:80 alpine true",
            0.5,
            times=times(20),
        ),
        Measure(
            "run --rm --network none true",
            "docker run --rm --network none alpine true",
            0.5,
            times=times(20),
        ),
        Measure(
            "run -d",
            "docker run -d --name bench alpine sleep 600",
            after="docker rm -f bench",
            times=times(15),
        ),
        Measure(
            "exec true",
            "docker exec bench true",
            1.0,
            once="docker run -d --name bench alpine sleep 6000",
            end="docker rm -f bench",
            times=times(20),
        ),
        Measure(
            "stop",
            "docker stop bench",
            once="true",
            # With an init the signal ends it at once: what is left is the engine's own time.
            before="docker run -d --init --name bench alpine sleep 600",
            after="docker rm -f bench",
            times=times(10),
        ),
        Measure(
            "build, 10 RUN steps, cold",
            "docker build -q --no-cache -t cold $DIR/cold",
            0.3,
            once=_write("cold", ["FROM alpine", *(f"RUN echo {n} > /{n}" for n in range(10))]),
            times=times(7),
        ),
        Measure(
            "build, 10 RUN steps, cached",
            "docker build -q -t cold $DIR/cold",
            1.0,
            once="docker build -q -t cold $DIR/cold",
            times=times(15),
        ),
        Measure(
            f"rebuild, one of {files:,} files changed",
            "docker build -q -t source $DIR/source",
            1.0,
            once=_write("source", ["FROM alpine", "COPY src /src", "RUN echo built > /done"])
            + f"; mkdir -p $DIR/source/src; cd $DIR/source/src; seq {files} |"
            " split -l 1 -a 4 - file; cd ../../..; docker build -q -t source $DIR/source",
            before="date +%N > $DIR/source/src/fileaaab",
            times=times(7),
        ),
        Measure(
            f"logs, {lines:,} lines",
            "docker logs bench > /dev/null",
            1.0,
            once=f"docker run --name bench alpine seq 1 {lines} > /dev/null",
            end="docker rm -f bench",
            times=times(7),
        ),
        Measure(
            f"{at_once} starts at once",
            f"for n in $(seq {at_once}); do docker run -d --name bench$n alpine sleep 600 & done;"
            " wait",
            after=f"docker rm -f $(seq -f bench%g {at_once})",
            times=times(5),
        ),
        Measure(
            f"ps -a, {many:,} containers",
            "docker ps -a",
            1.0,
            once=f"seq -f many%g {many} | xargs -P 4 -I N docker create --name N alpine true",
            end="docker rm $(docker ps -aq)",
            times=times(11),
        ),
    )


def _write(folder: str, lines: list[str]) -> str:
    text = "\\n".join(lines)
    return f"mkdir -p $DIR/{folder}; printf '{text}\\n' > $DIR/{folder}/Dockerfile"
