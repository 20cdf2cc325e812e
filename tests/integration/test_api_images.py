"""docker's own client and images: pull, list, inspect, history, tag, remove, save, load, import,
commit, push, prune, login, system df; with a real registry on the other side."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import os
import subprocess
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.box_site import BoxSite
from tests.engine_api import EngineApi, dial
from tests.file_server import FileServer, file_server
from tests.registry import (
    PASSWORD,
    USER,
    PushedImage,
    RegistryServer,
    push_image,
    running_registry,
    tar_of,
)
from tests.registry_faults import faulty_registry
from tests.rootfs import make_rootfs
from tests.sockets import signed_in


@dataclass
class Docker:
    socket: Path
    config: Path

    def __call__(self, *words: str, stdin: bytes = b"", fails: bool = False) -> str:
        """stdout, or stderr where it must fail."""
        done = subprocess.run(
            ["docker", *words],
            env={
                **os.environ,
                "DOCKER_HOST": f"unix://{self.socket}",
                "DOCKER_CONFIG": str(self.config),
            },
            input=stdin,
            capture_output=True,
        )
        assert (done.returncode != 0) is fails, (words, done.stdout, done.stderr)
        return (done.stderr if fails else done.stdout).decode()

    def json(self, *words: str) -> Any:
        return json.loads(self(*words, "--format", "json"))


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    with running_registry(tmp_path_factory.mktemp("registry")) as server:
        yield server


@pytest.fixture(scope="module")
def base(registry: RegistryServer, tmp_path_factory: pytest.TempPathFactory) -> PushedImage:
    root = tmp_path_factory.mktemp("root")
    make_rootfs(root)
    return push_image(
        registry,
        "lib/base",
        layers=[root, tar_of({"x": b"1234"})],
        config={"Cmd": ["sh"], "Env": ["PATH=/bin"], "Labels": {"kind": "base"}},
        index=True,
    )


@pytest.fixture
def docker(running_box_site: BoxSite, tmp_path: Path) -> Iterator[Docker]:
    """At the end only `box` is left."""
    site = running_box_site
    yield Docker(site.site.home / "run/docker.sock", tmp_path / "config")
    site.remove_all()
    site.call(
        """
        from engine.services.images import image_remove
        for made in Image.objects.exclude(tags__repository="docker.io/library/box"):
            done(image_remove(made, "user:1", force=True))
        """
    )
    assert not list((site.site.home / "incoming").glob("*"))
    assert not list((site.site.home / "run/auth").glob("*"))


@pytest.fixture
def name(docker: Docker, registry: RegistryServer, base: PushedImage) -> str:
    """The base image, pulled."""
    name = f"{registry.address}/lib/base"
    docker("pull", "-q", name)
    return name


def test_pull_as_docker_says_it(
    docker: Docker, registry: RegistryServer, base: PushedImage
) -> None:
    name = f"{registry.address}/lib/base"
    lines = docker("pull", name).splitlines()
    first, second = (digest.removeprefix("sha256:")[:12] for digest in base.layers)
    assert lines[:2] == ["Using default tag: latest", "latest: Pulling from lib/base"]
    assert sorted(lines[2:-3]) == sorted(
        f"{layer}: {text}"
        for layer in (first, second)
        for text in (
            "Pulling fs layer",
            "Verifying Checksum",
            "Download complete",
            "Pull complete",
        )
    )
    assert lines[-3:] == [
        f"Digest: {base.top}",
        f"Status: Downloaded newer image for {name}:latest",
        f"{name}:latest",
    ]
    again = docker("pull", name)
    assert "Already exists" not in again
    assert f"Status: Image is up to date for {name}:latest" in again
    by_digest = docker("pull", f"{name}@{base.top}")
    assert by_digest.startswith(f"{name}@{base.top}: Pulling from lib/base\n")
    assert docker("pull", f"{name}:nope", fails=True).strip() == (
        f"Error response from daemon: manifest for {name}:nope not found:"
        " manifest unknown: manifest unknown"
    )
    assert "invalid reference format" in docker("pull", "lib/A", fails=True)
    missing = docker("pull", "--platform", "linux/mips64le", name, fails=True)
    assert "no matching manifest for linux/mips64le in the manifest list" in missing


def test_all_tags_of_a_repository(docker: Docker, registry: RegistryServer) -> None:
    name = f"{registry.address}/lib/every"
    shared = tar_of({"x": b"1234"})
    pushed = {
        tag: push_image(registry, "lib/every", tag, layers=[shared, tar_of({tag: b"y"})])
        for tag in ("1", "2", "latest")
    }
    lines = docker("pull", "-a", name).splitlines()
    first, *_ = pushed["1"].layers
    short = first.removeprefix("sha256:")[:12]
    told = [line.split(": ")[0] for line in lines if line.endswith(": Pulling from lib/every")]
    assert sorted(told) == list(pushed)  # in the registry's order
    assert [line for line in lines if line.startswith("Digest: ")] == [
        f"Digest: {pushed[tag].top}" for tag in told
    ]
    assert [line for line in lines if line.startswith(short)].count(f"{short}: Already exists") == 2
    assert lines[-2:] == [f"Status: Downloaded newer image for {name}", name]
    tags = docker("images", name, "--format", "{{.Tag}}").split()
    assert sorted(tags) == ["1", "2", "latest"]
    again = docker("pull", "-a", name)
    assert f"Status: Image is up to date for {name}\n" in again
    assert "Already exists" not in again
    missing = docker("pull", "-a", f"{registry.address}/lib/nothing", fails=True)
    assert f"repository {registry.address}/lib/nothing not found: name unknown:" in missing


def test_list_inspect_history_and_tags(docker: Docker, name: str, base: PushedImage) -> None:
    (image,) = json.loads(docker("inspect", name))
    assert (image["Id"], image["RepoTags"]) == (base.config, [f"{name}:latest"])
    assert image["RepoDigests"] == [f"{name}@{base.top}"]
    assert image["RootFS"] == {"Type": "layers", "Layers": list(base.diff_ids)}
    assert image["Config"]["Cmd"] == ["sh"]
    assert image["Size"] > 1_000_000
    assert Path(image["GraphDriver"]["Data"]["UpperDir"]).is_dir()
    history = docker("history", "--no-trunc", "--format", "{{.ID}} {{.CreatedBy}} {{.Size}}", name)
    assert history.splitlines()[0] == f"{base.config} layer 1 4B"
    assert history.splitlines()[1].startswith("<missing> layer 0 ")
    docker("tag", name, "mine/app:2")
    docker("tag", base.config[7:19], "mine/app:3")
    listed = docker("images", "--format", "{{.Repository}}:{{.Tag}}", "mine/*")
    assert listed.split() == ["mine/app:2", "mine/app:3"]
    for filters, count in (
        ("label=kind=base", 3),
        ("label=kind=other", 0),
        ("dangling=true", 0),
        ("before=mine/app:2", 0),
        ("until=24h", 3),
    ):
        found = docker("images", "-q", "--filter", filters)
        assert found.split().count(base.config[7:19]) == count, filters
    assert "Invalid filter 'zz'" in docker("images", "--filter", "zz=1", fails=True)
    assert docker("rmi", "mine/app:2") == "Untagged: mine/app:2\n"
    assert docker("rmi", "nope", fails=True).strip() == (
        "Error response from daemon: No such image: nope:latest"
    )
    gone = docker("rmi", "-f", base.config[7:19]).splitlines()
    assert gone[-3:] == [
        f"Deleted: {base.config}",
        *(line for line in gone[-2:] if line.startswith("Deleted: sha256:")),
    ]


def test_save_load_and_import(docker: Docker, name: str, base: PushedImage, tmp_path: Path) -> None:
    docker("tag", name, "kept:1")
    archive = tmp_path / "saved.tar"
    docker("save", "-o", str(archive), "kept:1", base.config[7:19])
    docker("rmi", "-f", base.config)
    assert docker("load", "-i", str(archive)) == "Loaded image: kept:1\n"
    (image,) = json.loads(docker("inspect", "kept:1"))
    assert (image["Id"], image["RepoDigests"]) == (base.config, [])
    assert docker("load", "-q", stdin=archive.read_bytes()) == "Loaded image: kept:1\n"
    refused = docker("load", stdin=tar_of({"a": b"b"}), fails=True)
    assert "neither manifest.json" in refused
    assert "Error response" not in refused  # a line of the answer
    assert "No such image: nope" in docker("save", "nope", fails=True)
    made = docker(
        *("import", "-c", 'CMD ["/x"]', "-c", "ENV A=b", "-m", "from a tar", "-", "from/tar:1"),
        stdin=tar_of({"x": b"#!"}),
    )
    (image,) = json.loads(docker("inspect", "from/tar:1"))
    assert (image["Id"], image["Comment"]) == (made.strip(), "from a tar")
    assert (image["Config"]["Cmd"], image["Config"]["Env"]) == (["/x"], ["A=b"])
    refused = docker("import", "-c", "RUN x", "-", stdin=tar_of({"x": b""}), fails=True)
    assert "run is not a valid change command" in refused


@pytest.fixture
def files(running_box_site: BoxSite) -> Iterator[FileServer]:
    """Which root's ceiling lets the site fetch from."""
    ceiling = running_box_site.site.home / "ceiling.json"
    before = ceiling.read_text()
    ceiling.write_text(json.dumps({"fetch_addresses": ["127.0.0.0/8"]}))
    with file_server() as server:
        yield server
    ceiling.write_text(before)


def test_import_from_an_address(docker: Docker, files: FileServer) -> None:
    root = tar_of({"etc/": b"", "etc/hello": b"hi"})
    files.put("/root.tar.gz", gzip.compress(root))
    files.redirect("/elsewhere", f"{files.url}/root.tar.gz")
    for path in ("/root.tar.gz", "/elsewhere"):
        lines = docker("import", "-c", "CMD sh", f"{files.url}{path}", "from:url").splitlines()
        assert lines[0] == f"Downloading from {files.url}{path}"
        (image,) = json.loads(docker("inspect", "from:url"))
        assert lines[1:] == [image["Id"]]
        assert image["Comment"] == f"Imported from {files.url}{path}"
        assert image["Config"]["Cmd"] == ["/bin/sh", "-c", "sh"]
    docker("import", "-m", "mine", f"{files.url}/root.tar.gz", "from:url")
    assert json.loads(docker("inspect", "from:url"))[0]["Comment"] == "mine"
    assert f"failed to GET {files.url}/nothing with status 404 Not Found" in docker(
        "import", f"{files.url}/nothing", fails=True
    )
    files.redirect("/round", f"{files.url}/round")
    assert "redirects in a circle" in docker("import", f"{files.url}/round", fails=True)
    files.put("/text", b"no archive")
    assert docker("import", f"{files.url}/text", fails=True)
    files.put("/short", root, claims=len(root) + 1)
    assert docker("import", f"{files.url}/short", fails=True)


def test_import_keeps_out_of_the_hosts_own_network(
    docker: Docker, running_box_site: BoxSite
) -> None:
    api = EngineApi.of(running_box_site)
    with file_server() as files:
        files.put("/root.tar", tar_of({"x": b""}))
        refused = api.post(f"/images/create?fromSrc={files.url}/root.tar")
        assert refused.status == 403
        assert refused.message == (
            "127.0.0.1 is at 127.0.0.1, inside the host's own network (root can allow it: "
            "fetch_addresses in ceiling.json has the networks of the host's own that may be "
            "fetched from)"
        )
        assert not files.asked
    for source, text in (
        ("ftp://x/y", 'unsupported protocol scheme "ftp"'),
        ("http://me:secret@host/x", "an address with a user or a password in it"),
        ("http://", "not an address"),
        ("http://host/a%20b", "not an address"),
    ):
        refused = api.post(f"/images/create?fromSrc={source}")
        assert refused.status == 400, refused
        assert text in refused.message


def test_a_client_that_leaves_cancels_its_import(
    docker: Docker, files: FileServer, running_box_site: BoxSite
) -> None:
    files.put("/slow", tar_of({"x": b"1"}), claims=1 << 20, then=60.0)
    connection = dial(EngineApi.of(running_box_site).path)
    path = f"/images/create?fromSrc={files.url}/slow"
    connection.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
    told = b""
    while b"Downloading from" not in told:
        told += connection.recv(65536)
    connection.close()
    state = running_box_site.call(
        """
        work = Operation.objects.filter(kind="image.import").latest("pk")
        deadline = time.monotonic() + 10
        while work.is_open and time.monotonic() < deadline:
            time.sleep(0.02)
            work.refresh_from_db()
        result = work.state
        """
    )
    assert state == "cancelled"


def test_commit_keeps_what_a_container_changed(docker: Docker, name: str) -> None:
    docker("run", "--name", "c1", "-e", "A=1", name, "sh", "-c", "echo hi >/hello; rm /bin/ls")
    docker("commit", "-m", "why", "-a", "who", "-c", 'CMD ["cat", "/hello"]', "c1", "made:1")
    assert docker("run", "--rm", "made:1") == "hi\n"
    assert docker("run", "--rm", "made:1", "sh", "-c", "ls /bin/ls || echo gone $A") == "gone 1\n"
    (image,) = json.loads(docker("inspect", "made:1"))
    (parent,) = json.loads(docker("inspect", name))
    (container,) = json.loads(docker("inspect", "c1"))
    assert image["Container"] == container["Id"]
    assert (image["Parent"], image["Comment"], image["Author"]) == (parent["Id"], "why", "who")
    assert image["RootFS"]["Layers"][:2] == parent["RootFS"]["Layers"]
    refused = docker("rmi", name, fails=True)
    assert f'unable to remove repository reference "{name}" (must force)' in refused
    docker("rm", "c1")
    assert f"Untagged: {name}:latest" in docker("rmi", name)
    assert f"Deleted: {parent['Id']}" in docker("rmi", "made:1")


def test_a_running_container_goes_on_after_its_commit(docker: Docker, name: str) -> None:
    docker("run", "-d", "--name", "c2", name, "sh", "-c", "while :; do echo x >>/f; done")
    docker("commit", "c2", "made:2")
    assert docker("inspect", "-f", "{{.State.Status}}", "c2") == "running\n"
    before = docker("exec", "c2", "wc", "-l", "/f")
    time.sleep(0.05)
    assert docker("exec", "c2", "wc", "-l", "/f") != before
    refused = docker("rmi", "-f", docker("inspect", "-f", "{{.Image}}", "c2").strip(), fails=True)
    assert "cannot be forced" in refused


def test_push_and_its_digest(docker: Docker, name: str, registry: RegistryServer) -> None:
    target = f"{registry.address}/mine/app:7"
    docker("tag", name, target)
    lines = docker("push", target).splitlines()
    assert lines[0] == f"The push refers to repository [{registry.address}/mine/app]"
    assert sum(line.endswith("Mounted from lib/base") for line in lines) == 2
    assert lines[-1].startswith("7: digest: sha256:")
    digest = lines[-1].split()[2]
    assert f"{registry.address}/mine/app@{digest}" in docker(
        "inspect", "-f", "{{json .RepoDigests}}", target
    )
    assert "Layer already exists" in docker("push", "-a", f"{registry.address}/mine/app")
    assert "An image does not exist locally with the tag: nope" in docker(
        "push", "nope", fails=True
    )


def test_sign_in_goes_along_and_is_not_kept(
    docker: Docker, name: str, tmp_path: Path, running_box_site: BoxSite
) -> None:
    with running_registry(tmp_path, "token", anonymous=()) as private:
        target = f"{private.address}/me/secret"
        docker("tag", name, target)
        refused = docker("push", target, fails=True)
        assert "denied: " in refused or "unauthorized: " in refused
        wrong = ("login", "-u", USER, "-p", "wrong", private.address)
        assert "unauthorized: " in docker(*wrong, fails=True)
        assert "Login Succeeded" in docker("login", "-u", USER, "-p", PASSWORD, private.address)
        docker("push", target)
        docker("rmi", target)
        docker("pull", target)
        docker("logout", private.address)
        assert f"pull access denied for {target}, repository does not exist" in docker(
            "pull", target, fails=True
        )
        dump = running_box_site.call("result = str(list(Operation.objects.values()))")
        assert PASSWORD not in dump


def test_prune_and_disk_usage(docker: Docker, name: str, running_box_site: BoxSite) -> None:
    docker("import", "-", "one:1", stdin=tar_of({"a": b"x" * 5000}))
    docker("import", "-", "one:1", stdin=tar_of({"b": b"x" * 5000}))
    usage = [json.loads(line) for line in docker("system", "df", "--format", "json").splitlines()]
    images = next(one for one in usage if one["Type"] == "Images")
    assert (images["TotalCount"], images["Active"]) == ("4", "0")
    assert "Total reclaimed space: 5kB" in docker("image", "prune", "-f")
    docker("run", "--name", "c1", name, "true")
    running_box_site.command("true", start=False)  # `box` is in use, and stays
    pruned = docker("image", "prune", "-af", "--filter", "label!=kind")
    assert "untagged: one:1" in pruned
    assert name not in pruned
    assert name in docker("images", "--format", "{{.Repository}}")


@pytest.mark.parametrize("tag", ["&tag=latest", ""])
def test_a_client_that_leaves_cancels_its_pull(
    docker: Docker, registry: RegistryServer, running_box_site: BoxSite, tag: str
) -> None:
    big = tar_of({"big": os.urandom(8 << 20)})
    pushed = push_image(registry, "lib/slow", layers=[big])
    with faulty_registry(registry.address) as slow:
        slow.rule("/blobs/" + pushed.layers[0], rate=100_000)
        path = f"/v1.47/images/create?fromImage={slow.address}/lib/slow{tag}"
        connection = dial(EngineApi.of(running_box_site).path)
        connection.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
        running_box_site.call(
            """
            while not Operation.objects.open().filter(kind="image.pull", state="running"):
                time.sleep(0.02)
            """
        )
        connection.close()
        state = running_box_site.call(
            """
            pull = Operation.objects.filter(kind="image.pull").latest("pk")
            deadline = time.monotonic() + 10
            while pull.is_open and time.monotonic() < deadline:
                time.sleep(0.02)
                pull.refresh_from_db()
            result = pull.state
            """
        )
        assert state == "cancelled"


def test_a_body_that_breaks_off_leaves_nothing(docker: Docker, running_box_site: BoxSite) -> None:
    connection = dial(EngineApi.of(running_box_site).path)
    head = "POST /v1.47/images/load HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"
    connection.sendall(head.encode() + b"x" * 1000)
    incoming = running_box_site.site.home / "incoming"
    deadline = time.monotonic() + 10
    while not list(incoming.glob("*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    connection.close()
    while list(incoming.glob("*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not list(incoming.glob("*"))


def test_the_pages_save_load_and_prune(
    docker: Docker, name: str, base: PushedImage, running_box_site: BoxSite
) -> None:
    site = running_box_site
    site.command("true", start=False)  # `box` is in use, and stays
    docker("tag", name, "paged:1")
    docker("rmi", name)
    team = f"/t/{site.call('result = Team.objects.get().slug')}"

    async def pages() -> None:
        async with signed_in(site.url) as person:
            async with person.http.get(f"{team}/images/i/{base.config[7:19]}/save/") as answer:
                assert 'filename="paged-1.tar"' in answer.headers["Content-Disposition"]
                saved = await answer.read()
            with tarfile.open(fileobj=io.BytesIO(saved)) as archive:
                assert "manifest.json" in archive.getnames()
            docker("rmi", "paged:1")
            form = aiohttp.FormData({"csrfmiddlewaretoken": person.cookie("csrf")})
            form.add_field("archive", io.BytesIO(saved), filename="saved.tar")
            async with person.http.post(f"{team}/images/load/", data=form) as answer:
                assert "saved.tar" in await answer.text()
            site.call('done(Operation.objects.filter(kind="image.load").latest("pk"))')
            assert docker("inspect", "-f", "{{.Id}}", "paged:1").strip() == base.config
            async with person.http.get(f"{team}/images/prune/") as answer:
                assert "paged:1" in await answer.text()
            assert await person.post(f"{team}/images/prune/", all="on") in (200, 204, 302)
            site.call('done(Operation.objects.filter(kind="image.prune").latest("pk"))')

    asyncio.run(pages())
    assert "No such image: paged:1" in docker("inspect", "--type", "image", "paged:1", fails=True)
    assert docker("images", "-q", "box").strip()
