"""POST /build on a running site, as the docker CLI and as bare requests; and what the site's own
rows say of it."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import tarfile
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.box_site import BoxSite, box_site, running_box_site
from tests.engine_api import Answer, EngineApi, dial

__all__ = ["box_site", "running_box_site"]

_IMAGE = """
import json
from engine.build.export import make_layer, write_image
from engine.build.scope import Scope
from engine.build.state import StageState
from engine.oci import platform
from engine.oci.digest import chain_id
from engine.oci.image import ContainerConfig
from engine.oci.reference import Reference
from engine.services import images

if not Tag.objects.filter(repository="docker.io/library/busybox").exists():
    parts = host()
    parts.snapshots.prepare("busybox", None)
    make_rootfs(parts.snapshots.upper("busybox"))
    layer = make_layer(parts.snapshots, parts.content, "busybox", 1700000000)
    chain = chain_id([layer.diff_id])
    parts.snapshots.commit("busybox", chain)
    state = StageState(
        key="", platform=platform.host(), scope=Scope({}, {}), layers=(layer,), chain=chain,
        config=ContainerConfig(env=("PATH=/bin",)), created="2023-11-14T22:13:20Z",
    )
    top, config, made, _ = write_image(parts.content, state)
    row = {"digest": str(layer.descriptor.digest), "diff_id": str(layer.diff_id),
           "size": layer.descriptor.size, "media_type": layer.descriptor.media_type}
    images.image_record(
        namespace, digest=str(config.digest), manifest_digest=str(top.digest),
        config=json.loads(parts.content.read(config.digest)), layers=[row],
        names=(Reference.parse("busybox"),),
    )
"""


@pytest.fixture
def site(box_site: BoxSite) -> BoxSite:
    box_site.call(_IMAGE)
    return box_site


def tar(files: Mapping[str, str]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    return out.getvalue()


def post(
    site: BoxSite, files: Mapping[str, str] | bytes | str, headers: Any = None, **query: str
) -> Answer:
    if isinstance(files, str):
        files = {"Dockerfile": files}
    body = files if isinstance(files, bytes) else tar(files)
    kind = {"Content-Type": "application/x-tar", **(headers or {})}
    return EngineApi.of(site).call("POST", f"/v1.41/build?{urlencode(query)}", body, kind)


def lines(answer: Answer) -> list[dict[str, Any]]:
    assert answer.status == 200, answer.body
    return [json.loads(line) for line in answer.body.splitlines() if line.strip()]


def text(answer: Answer) -> str:
    return "".join(line.get("stream", "") for line in lines(answer))


def docker(site: BoxSite, *words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "DOCKER_HOST": f"unix://{site.site.home}/run/docker.sock",
        "DOCKER_BUILDKIT": "0",
        "DOCKER_CONFIG": str(folder / ".docker"),
    }
    return subprocess.run(
        ["docker", *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=60
    )


def test_the_cli_builds_and_the_site_has_it(site: BoxSite, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(
        "ARG V=latest\nFROM busybox:$V\nENV WHO=quay\nCOPY hello /hello\nRUN cat /hello\n"
        "HEALTHCHECK --interval=5s CMD true\n"
    )
    (tmp_path / "hello").write_text("hello side\n")
    done = docker(site, "build", "-t", "cli:1", "-t", "cli", "--label", "a=b", ".", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Step 1/7 : ARG V=latest\nStep 2/7 : FROM busybox:$V\n ---> " in done.stdout
    assert "hello side\n" in done.stdout
    assert "Step 7/7 : LABEL a=b\n" in done.stdout
    assert done.stdout.endswith("Successfully tagged cli:1\nSuccessfully tagged cli:latest\n")
    found = site.call(
        """
        build = Build.objects.order_by("-pk").first()
        config = build.image.config["config"]
        names = sorted(tag.familiar for tag in build.image.tags.all())
        result = [build.state, build.tag, build.actor, build.dockerfile[:8], len(build.steps),
                  config["Labels"], config["Healthcheck"]["Interval"], names]
        """
    )
    assert found == [
        *("done", "cli:1", "local:root", "ARG V=la", 6),
        {"a": "b"},
        5 * 10**9,
        ["cli:1", "cli:latest"],
    ]
    again = docker(site, "build", "-q", "-t", "cli", "--label", "a=b", ".", folder=tmp_path)
    assert again.stdout.startswith("sha256:")
    failing = tmp_path / "failing"
    failing.write_text("FROM busybox\nRUN echo before; exit 7\n")
    failed = docker(site, "build", "-f", "failing", ".", folder=tmp_path)
    assert failed.returncode == 7
    assert "returned a non-zero code: 7" in failed.stderr


def test_mistakes_have_their_status_and_mobys_words(site: BoxSite) -> None:
    def refused(answer: Answer) -> tuple[int, str]:
        return answer.status, answer.message

    assert refused(post(site, "FROM busybox\nRUN true\nFOO bar\n")) == (
        400,
        "dockerfile parse error line 3: unknown instruction: FOO",
    )
    assert refused(post(site, "")) == (400, "the Dockerfile (Dockerfile) cannot be empty")
    assert refused(post(site, "# x\n")) == (
        400,
        "failed to parse Dockerfile: file with no instructions",
    )
    assert refused(post(site, "RUN true\n")) == (400, "no build stage in current context")
    missing = (500, "Cannot locate specified Dockerfile: Dockerfile")
    assert refused(post(site, {"x": "y"})) == missing
    assert refused(post(site, b"")) == missing
    assert refused(post(site, "FROM busybox AS a\n", target="zz")) == (
        400,
        "failed to reach build target zz in Dockerfile",
    )
    assert refused(post(site, "FROM busybox\n", squash="1")) == (
        400,
        "squash is only supported with experimental mode",
    )
    for query in ({"version": "2"}, {"remote": "http://a/b"}, {"platform": "linux/s390x"}):
        assert post(site, "FROM busybox\n", **query).status == 501
    assert post(site, "FROM busybox\nRUN --mount=type=cache,target=/x true\n").status == 501
    assert post(site, "FROM busybox\n", networkmode="host").status == 403
    assert EngineApi.of(site).call("POST", "/v1.47/session").status == 501
    assert EngineApi.of(site).call("POST", "/v1.47/grpc").status == 501
    assert site.call("result = list((host().config.home / 'uploads').glob('.api-*'))") == []


def test_what_only_the_api_asks_for(site: BoxSite) -> None:
    dockerfile = (
        "FROM busybox\nARG A\nRUN echo arg $A; grep extra.test /etc/hosts; ulimit -n; "
        "df /dev/shm | tail -n 1; ip addr show eth0 || echo alone\n"
    )
    said = text(
        post(
            site,
            gzip.compress(tar({"dir/D": dockerfile})),
            {"Content-Encoding": "gzip"},
            dockerfile="./dir/D",
            buildargs=json.dumps({"A": "one", "NOT": "x", "NULL": None}),
            extrahosts="extra.test:10.9.8.7",
            ulimits=json.dumps([{"Name": "nofile", "Soft": 77, "Hard": 77}]),
            shmsize=str(8 << 20),
            networkmode="none",
            memory=str(256 << 20),
            cpushares="512",
        )
    )
    assert "arg one\n10.9.8.7\textra.test\n77\n" in said
    assert " 8192 " in said
    assert "alone\n" in said
    assert "[Warning] One or more build-args [NOT] were not consumed\n" in said
    assert "Using cache" not in text(post(site, dockerfile, cachefrom='["nosuchimage"]'))


def test_onbuild_of_an_image_built_before(site: BoxSite) -> None:
    text(post(site, "FROM busybox\nONBUILD RUN echo trig\nONBUILD COPY a /a\n", t="onbuild"))
    said = text(post(site, {"Dockerfile": "FROM onbuild\nRUN cat /a\n", "a": "from a\n"}))
    assert "Step 1/2 : FROM onbuild\n# Executing 2 build triggers\n ---> Running in" in said
    assert "trig\n" in said
    assert "Step 2/2 : RUN cat /a\n" in said
    assert "from a\n" in said


def test_a_client_that_leaves_cancels_its_build(site: BoxSite) -> None:
    body = tar({"Dockerfile": "FROM busybox\nRUN echo begun; sleep 60\n"})
    head = f"POST /build HTTP/1.1\r\nHost: docker\r\nContent-Length: {len(body)}\r\n\r\n"
    with closing(dial(EngineApi.of(site).path)) as connection:
        connection.sendall(head.encode() + body)
        said = b""
        while b'"begun' not in said:
            said += connection.recv(65536)
    deadline = time.monotonic() + 10
    while site.call('result = Build.objects.order_by("-pk").first().state') != "cancelled":
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_the_cache_is_listed_and_pruned(site: BoxSite) -> None:
    text(post(site, "FROM busybox\nRUN echo pruned > /x\n", t="pruned"))
    listed = site.call(
        """
        from engine.services import build_cache
        result = [record.to_docker() for record in build_cache.records(namespace)]
        """
    )
    assert listed
    assert listed[0]["Size"] > 0
    api = EngineApi.of(site)
    kept = api.call("POST", "/v1.47/build/prune").json
    assert isinstance(kept["SpaceReclaimed"], int)
    assert "Using cache" in text(post(site, "FROM busybox\nRUN echo pruned > /x\n"))
    pruned = api.call("POST", "/v1.47/build/prune?all=1").json
    assert pruned["CachesDeleted"]
    assert "Using cache" not in text(post(site, "FROM busybox\nRUN echo pruned > /x\n"))
    assert api.call("POST", '/v1.47/build/prune?filters={"a":["b"]}').status == 400
