"""Pages as a browser without JavaScript sees them, their queries, and what a form keeps."""

from __future__ import annotations

import json
import re
import time
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from engine.containers.options import Limits
from engine.containers.settings import ContainerSettings
from engine.models import Build, Container, Operation, Tag, TerminalSession, Upload
from engine.services.uploads import upload_path
from tests.unit.console_rows import Site, digest, make_container, make_image, make_many, make_site

pytestmark = pytest.mark.django_db


@pytest.fixture
def site() -> Site:
    return make_site()


LISTS = ["containers/", "builds/", "images/", ""]
MOST_QUERIES = 12


def get(site: Site, address: str, **headers: str) -> str:
    response = site.client.get(site.base + address, headers=headers)
    assert response.status_code == 200, (address, response.status_code)
    return str(response.content.decode())


def test_lists_ask_few_questions_and_answer_soon(site: Site) -> None:
    make_many(site, 5000)
    for address in LISTS:
        page = get(site, address)
        times = []
        for _ in range(5):
            with CaptureQueriesContext(connection) as queries:
                begun = time.process_time()
                page = get(site, address)
                times.append(time.process_time() - begun)
        assert len(queries) <= MOST_QUERIES, [q["sql"][:90] for q in queries]
        assert page.count("data-row=") <= 100
        # Processor time: what else a shared machine does meanwhile is not this page's.
        assert sorted(times)[2] < 0.08, (address, times)


def test_every_page_carries_the_policy_and_no_inline_code(site: Site) -> None:
    image = make_image(site)
    container = make_container(site, image, "web", state="running")
    session = TerminalSession.objects.create(
        container=container, kind="exec", generation=0, owner_id=site.user.pk
    )
    build = Build.objects.create(
        namespace=site.namespace, node=site.node, number=1, dockerfile="FROM node\n", image=image
    )
    terminal = f"containers/web/terminal/{session.pk}/"
    pages = [
        *LISTS, "containers/new/", "containers/new/?image=shop", "containers/web/logs/",
        "containers/web/terminal/", terminal, "containers/web/inspect/",
        "containers/web/settings/", f"containers/remove/?id={container.pk}", "builds/new/",
        f"builds/{build.number}/", "images/pull/", f"images/i/{image.short_id}/layers/",
        f"images/i/{image.short_id}/config/", f"images/i/{image.short_id}/tag/",
        f"images/i/{image.short_id}/remove/",
    ]  # fmt: skip
    for address in pages:
        response = site.client.get(site.base + address)
        assert response.status_code == 200, address
        policy = response["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert ("unsafe-inline" in policy) == (address == terminal), address
        html = response.content.decode()
        assert not re.search(r"<[^>]+\s(style|on[a-z]+)=", html), address
        assert not re.search(r"<script(?![^>]*\ssrc=)", html), address
        assert html.count("button-primary") <= 1 + html.count("data-once"), address


def test_the_list_shows_state_ports_and_filters(site: Site) -> None:
    image = make_image(site)
    web = make_container(site, image, "web", state="running")
    web.ports.create(container_port=80, host_port=3000, published_port=3000)
    make_container(site, image, "job", state="exited", exit_code=3)
    page = get(site, "containers/")
    assert 'href="http://testserver:3000/"' in page
    assert "exited (3)" in page and "running" in page
    assert "data-row" not in get(site, "containers/?q=nothing-like-it")
    assert get(site, "containers/?state=running").count("data-row=") == 1
    rows = get(site, f"containers/rows/?ids={web.pk},999999,x")
    assert rows.count("<tr") == 1


def test_what_was_stopped_by_hand_has_not_failed(site: Site) -> None:
    image = make_image(site)
    job = make_container(site, image, "job", state="running")
    Container.objects.filter(pk=job.pk).update(
        state="exited", exit_code=143, finished_at=timezone.now(), stopped_by_hand=True
    )
    assert "state-fail" not in get(site, "containers/")
    assert "state-fail" not in get(site, "")
    Container.objects.update(stopped_by_hand=False)
    assert "state-fail" in get(site, "containers/")


def test_an_open_operation_shows_before_the_state(site: Site) -> None:
    web = make_container(site, make_image(site), "web", state="running")
    response = site.client.post(f"{site.base}containers/web/stop/", headers={"HX-Request": "true"})
    assert response.status_code == 204
    events = json.loads(response["HX-Trigger"])
    assert events["quayside:changed"]["rows"] == [{"kind": "container", "id": str(web.pk)}]
    row = get(site, f"containers/rows/?ids={web.pk}")
    assert "stopping" in row and "data-pending" in row


def test_a_refused_action_says_why(site: Site) -> None:
    make_container(site, make_image(site), "web", state="exited", exit_code=0)
    address = f"{site.base}containers/web/stop/"
    live = site.client.post(address, headers={"HX-Request": "true"})
    assert live.status_code == 422
    toast = json.loads(live["HX-Trigger"])["quayside:toast"]
    assert toast == {
        "tone": "fail", "text": "Container “web” is not running.", "hint": "Start it first.",
    }  # fmt: skip
    plain = site.client.post(address, follow=True)
    assert "Container “web” is not running." in plain.content.decode()


def test_bulk_does_what_it_can_and_names_the_rest(site: Site) -> None:
    image = make_image(site)
    up = make_container(site, image, "up", state="running")
    down = make_container(site, image, "down", state="exited")
    response = site.client.post(
        f"{site.base}containers/bulk/", {"action": "stop", "id": [up.pk, down.pk]}, follow=True
    )
    page = response.content.decode()
    assert "Stopping 1 container." in page and "“down” is not running" in page
    assert Operation.objects.get().target == str(up.pk)


def test_removal_asks_once_and_names_what_goes(site: Site) -> None:
    image = make_image(site)
    web = make_container(site, image, "web", state="running")
    page = get(site, f"containers/remove/?id={web.pk}")
    assert "web" in page and "will be killed" in page
    dialog = get(site, f"containers/remove/?id={web.pk}", **{"HX-Request": "true"})
    assert "<html" not in dialog
    assert not Operation.objects.exists()
    site.client.post(f"{site.base}containers/remove/", {"id": web.pk})
    assert Operation.objects.get().args == {"force": True, "name": "web", "volumes": True}


def run(site: Site, **fields: Any) -> Any:
    data = {"image": "shop", "mode": "detached", **fields}
    return site.client.post(f"{site.base}containers/new/", data)


def test_run_detached_goes_to_the_log(site: Site) -> None:
    make_image(site)
    response = run(
        site, name="web", host_port=["3000", ""], container_port=["80", ""],
        protocol=["tcp", "tcp"], host_ip="127.0.0.1", env="A=1\nB=two words",
        command='node "a file.js"', auto_remove="on",
    )  # fmt: skip
    assert response["Location"] == f"{site.base}containers/web/logs/"
    settings = Container.objects.get().settings
    assert settings["cmd"] == ["node", "a file.js"]
    assert {"A=1", "B=two words"} <= set(settings["env"])
    port = Container.objects.get().ports.get()
    assert (port.host_ip, port.host_port, port.container_port) == ("127.0.0.1", 3000, 80)
    assert Operation.objects.get().kind == "container.start"


def test_run_with_limits_volumes_and_rights(site: Site) -> None:
    make_image(site)
    response = run(
        site, name="web", memory="64m", cpus="0.5", pids="20", restart="on-failure",
        volumes="data:/data:ro\n/cache", labels="a=b", read_only="on", init="on",
        no_new_privileges="on", cap_drop="ALL", cap_add="NET_ADMIN, chown", network="none",
    )  # fmt: skip
    assert response["Location"] == f"{site.base}containers/web/logs/"
    settings = ContainerSettings.from_json(Container.objects.get().settings)
    host = settings.host
    assert host.limits == Limits(
        memory=64 << 20, memory_swap=128 << 20, nano_cpus=500_000_000, pids=20
    )
    assert (host.restart.name, host.read_only, host.init) == ("on-failure", True, True)
    assert (host.cap_drop, host.cap_add) == (("ALL",), ("NET_ADMIN", "chown"))
    assert [(m.type, m.destination, m.read_only) for m in host.mounts] == [
        ("volume", "/data", True),
        ("volume", "/cache", False),
    ]
    assert host.security_opt == ("no-new-privileges",) and settings.labels == {"a": "b"}
    assert settings.networks == ()
    run(site, name="db", memory="64m", memory_swap="96m", restart="on-failure", retries="3")
    host = ContainerSettings.from_json(Container.objects.get(name="db").settings).host
    assert host.limits == Limits(memory=64 << 20, memory_swap=96 << 20)
    assert (host.restart.name, host.restart.max_retries) == ("on-failure", 3)


def test_limits_are_changed_on_the_settings_tab(site: Site) -> None:
    make_image(site)
    run(site, name="web", memory="64m", cpus="0.5")
    address = f"{site.base}containers/web/limits/"
    page = get(site, "containers/web/settings/")
    assert 'value="64m"' in page and 'value="0.5"' in page
    wrong = site.client.post(address, {"memory": "much", "restart": "no"})
    assert wrong.status_code == 422 and "is no size" in wrong.content.decode()
    assert site.client.post(address, {"memory": "1m", "restart": "no"}).status_code == 422
    site.client.post(address, {"memory": "", "cpus": "1", "pids": "9", "restart": "always"})
    args = Operation.objects.get(kind="container.update").args
    assert args["limits"] == {"nano_cpus": 10**9, "pids": 9}
    assert args["restart"]["name"] == "always"


def test_a_running_one_is_paused_and_goes_on(site: Site) -> None:
    container = make_container(site, make_image(site), "web", state="running")
    assert "containers/web/pause/" in get(site, "containers/web/logs/")
    site.client.post(f"{site.base}containers/web/pause/")
    assert Operation.objects.get().kind == "container.pause"
    Operation.objects.all().delete()
    Container.objects.filter(pk=container.pk).update(state="paused")
    assert "containers/web/unpause/" in get(site, "containers/web/logs/")
    assert "containers/web/unpause/" in get(site, "containers/")
    site.client.post(f"{site.base}containers/web/unpause/")
    assert Operation.objects.get().kind == "container.unpause"


def test_run_attached_with_a_terminal_starts_once_its_size_is_known(site: Site) -> None:
    make_image(site)
    response = run(site, name="node", mode="attached", interactive="on", tty="on")
    session = TerminalSession.objects.get()
    path = f"{site.base}containers/node/terminal/{session.pk}/"
    assert response["Location"] == f"{path}?start=1"
    assert Operation.objects.get().kind == "container.create"
    page = site.client.get(f"{path}?start=1").content.decode()
    start = f"{site.base}containers/node/start/"
    assert f'data-start="{start}"' in page
    json_please = {"Accept": "application/json"}
    assert site.client.post(start, {"cols": "x"}, headers=json_please).status_code == 400
    started = site.client.post(start, {"cols": 120, "rows": 40}, headers=json_please)
    assert started.json() == {"started": True}
    operation = Operation.objects.get(kind="container.start")
    assert operation.args == {"name": "node", "cols": 120, "rows": 40}


def test_shells_of_one_container_are_told_apart(site: Site) -> None:
    container = make_container(site, make_image(site), "web", state="running")
    path, owner = f"{site.base}containers/web/terminal/", site.user.pk
    made = [
        TerminalSession.objects.create(
            container=container,
            kind=kind,
            generation=container.generation,
            owner_id=owner,
            argv=argv,
            state=state,
        )
        for kind, argv, state in [
            ("exec", [], "ended"),
            ("exec", [], "open"),
            ("attach", [], "open"),
            ("attach", [], "open"),
            ("exec", ["top", "-b"], "open"),
        ]
    ]
    page = site.client.get(path).content.decode()
    shown = re.findall(r'<a class="name" href="[^"]*terminal/[^"]*">([^<]*)</a>', page)
    assert shown == ["top -b #3", "Shell #2", "Main process"]
    assert page.count("/end/") == 2 and f"{path}{made[1].pk}/end/" in page
    asks = site.client.get(f"{path}{made[1].pk}/end/").content.decode()
    assert "Shell #2" in asks and "End this shell?" in asks
    # A main process is not ended from here, nor somebody else's shell.
    for one in (made[3], made[0]):
        assert site.client.post(f"{path}{one.pk}/end/")["Location"] == path
    other = TerminalSession.objects.create(
        container=container, kind="exec", generation=container.generation, owner_id=owner + 1
    )
    assert site.client.post(f"{path}{other.pk}/end/")["Location"] == path


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"image": "nowhere"}, "There is no image “nowhere” here."),
        ({"image": ""}, "Choose the image to run."),
        ({"name": "bad name!"}, "cannot be a container&#x27;s name"),
        ({"name": "taken"}, "The name “taken” is taken."),
        ({"command": 'node "open'}, "A quotation mark is not closed."),
        ({"working_dir": "app"}, "Write the whole path"),
        ({"env": "=1"}, "has no name before the ="),
        ({"host_port": "70000", "container_port": "80", "protocol": "tcp"}, "are no ports"),
        ({"memory": "lots"}, "is no size"),
        ({"memory": "1m"}, "Less than 6 MB"),
        ({"memory": "64m", "memory_swap": "32m"}, "cannot be less than the memory"),
        ({"restart": "always", "retries": "3"}, "counts its tries"),
        ({"cap_add": "SYS_ADMIN"}, "SYS_ADMIN may not be added"),
        ({"cap_add": "nonsense"}, "There is no capability"),
        ({"volumes": "data"}, "is no volume"),
        (
            {"network": "none", "container_port": "80", "host_port": "", "protocol": "tcp"},
            "Without a network no port",
        ),
        ({"volumes": "/etc:/etc"}, "folder /etc may not be mounted"),
        ({"auto_remove": "on", "restart": "always"}, "cannot be started again"),
        (
            {"host_port": ["80", "80"], "container_port": ["1", "2"], "protocol": ["tcp", "tcp"]},
            "is given twice",
        ),
    ],
)
def test_a_mistake_in_the_run_form_is_told_at_its_field(
    site: Site, fields: dict[str, Any], sentence: str
) -> None:
    make_container(site, make_image(site), "taken")
    response = run(site, **{"user": "typed-by-hand", **fields})
    page = response.content.decode()
    assert response.status_code == 422
    assert sentence in page
    assert 'value="typed-by-hand"' in page
    assert Container.objects.count() == 1


def test_the_run_form_shows_what_the_image_says(site: Site) -> None:
    make_image(site)
    page = get(site, "containers/new/defaults/?image=shop")
    assert 'data-expose="80"' in page and 'data-command="node server.js"' in page
    assert "not here" in get(site, "containers/new/defaults/?image=elsewhere")


def test_starting_again_in_its_three_ways(site: Site) -> None:
    image = make_image(site)
    plain = make_container(site, image, "plain", state="exited")
    post = lambda mode: site.client.post(  # noqa: E731
        f"{site.base}containers/plain/start/", {"mode": mode}
    )
    assert post("attached")["Location"].endswith("/logs/?attached=1")
    Operation.objects.all().delete()
    assert post("detached")["Location"].endswith("/logs/")
    assert "?start=1" in post("interactive")["Location"]
    assert TerminalSession.objects.get().container_id == plain.pk


def test_rename_keeps_what_was_typed(site: Site) -> None:
    image = make_image(site)
    make_container(site, image, "web")
    make_container(site, image, "other")
    address = f"{site.base}containers/web/settings/"
    refused = site.client.post(address, {"name": "other"})
    assert refused.status_code == 422 and 'value="other"' in refused.content.decode()
    assert site.client.post(address, {"name": "shop"})["Location"].endswith("/shop/settings/")


def test_a_shell_needs_a_running_container(site: Site) -> None:
    web = make_container(site, make_image(site), "web", state="exited")
    address = f"{site.base}containers/web/terminals/"
    refused = site.client.post(address, {"kind": "exec", "command": "sh", "user": "app"})
    assert refused.status_code == 422 and 'value="app"' in refused.content.decode()
    Container.objects.filter(pk=web.pk).update(state="running")
    site.client.post(address, {"kind": "exec", "command": "sh -l", "user": "app"})
    session = TerminalSession.objects.get()
    assert (session.argv, session.user) == (["sh", "-l"], "app")
    assert "sh -l" in get(site, "containers/web/terminal/")


def test_a_mistake_in_the_dockerfile_shows_at_its_line(site: Site) -> None:
    response = site.client.post(
        f"{site.base}builds/new/", {"dockerfile": "FROM node\nRUNN x\n", "tag": "shop"}
    )
    page = response.content.decode()
    assert response.status_code == 422
    assert 'data-bad="2"' in page
    assert "RUNN x" in page and 'value="shop"' in page
    assert not Build.objects.exists()


def test_a_build_with_everything(site: Site) -> None:
    response = site.client.post(
        f"{site.base}builds/new/",
        {"dockerfile": "FROM node\r\n", "tag": "shop:1", "args": "A=1\nB=x=y", "no_cache": "on"},
    )
    build = Build.objects.get()
    assert response["Location"] == f"{site.base}builds/1/"
    assert (build.args, build.no_cache, build.dockerfile) == (
        {"A": "1", "B": "x=y"}, True, "FROM node\n",
    )  # fmt: skip
    assert "FROM" in get(site, "builds/1/")
    assert site.client.post(f"{site.base}builds/1/cancel/").status_code == 302
    build.refresh_from_db()
    assert build.state == "cancelled"


def test_the_failing_line_is_marked(site: Site) -> None:
    Build.objects.create(
        namespace=site.namespace, node=site.node, number=7, state="failed",
        dockerfile="FROM node\nRUN false \\\n  && true\nCMD x\n",
        error={"id": "step-failed", "context": {"code": 1, "line": 2, "end_line": 3}},
    )  # fmt: skip
    page = get(site, "builds/7/")
    assert page.count('<li class="failed">') == 2
    assert "Line 2: The command ended with code 1." in page


def test_build_again_as_it_was_and_changed(site: Site) -> None:
    make = {"dockerfile": "FROM node\n", "tag": "shop"}
    site.client.post(f"{site.base}builds/new/", make)
    again = f"{site.base}builds/1/again/"
    assert site.client.post(again)["Location"] == f"{site.base}builds/2/"
    assert Build.objects.get(number=2).dockerfile == "FROM node\n"
    site.client.post(again, {"dockerfile": "FROM alpine\n", "no_cache": "on"})
    changed = Build.objects.get(number=3)
    assert (changed.dockerfile, changed.no_cache) == ("FROM alpine\n", True)
    refused = site.client.post(again, {"dockerfile": "NOT a Dockerfile"})
    assert refused.status_code == 422 and "NOT a Dockerfile" in refused.content.decode()


def test_an_upload_in_pieces_is_taken_up_where_it_broke(site: Site) -> None:
    made = site.client.post(
        f"{site.base}uploads/builds/", {"filename": "shop.tar", "size": 10}
    ).json()
    put = lambda offset, data: site.client.put(  # noqa: E731
        made["url"], data, "application/octet-stream", headers={"Upload-Offset": str(offset)}
    )
    try:
        assert put(0, b"01234").json() == {"offset": 5}
        gap = put(7, b"789")
        assert (gap.status_code, gap.json()["offset"]) == (409, 5)
        assert site.client.get(made["url"]).json() == {"offset": 5, "complete": False}
        early = site.client.post(f"{made['url']}finish/")
        assert (early.status_code, early.json()["offset"]) == (409, 5)
        assert put(5, b"56789").json() == {"offset": 10}
        assert site.client.post(f"{made['url']}finish/").json()["complete"] is True
        upload = Upload.objects.get()
        assert upload_path(upload).read_bytes() == b"0123456789"
        response = site.client.post(f"{site.base}builds/new/", {"upload": upload.pk, "args": "X"})
        page = response.content.decode()
        assert response.status_code == 422 and str(upload.pk) in page and "shop.tar" in page
    finally:
        upload_path(Upload.objects.get()).unlink(missing_ok=True)


def test_uploads_refuse_what_they_cannot_take(site: Site) -> None:
    bad = site.client.post(f"{site.base}uploads/builds/", {"filename": "shop.docx", "size": 1})
    assert bad.status_code == 400 and "no archive" in bad.json()["error"]
    assert site.client.get(f"{site.base}uploads/builds/{uuid4()}/").status_code == 404
    made = site.client.post(f"{site.base}uploads/builds/", {"filename": "a.zip", "size": 9}).json()
    large = b"x" * (8 * 1024 * 1024 + 1)
    put = site.client.put(
        made["url"], large, "application/octet-stream", headers={"Upload-Offset": "0"}
    )
    assert put.status_code == 400


def test_the_layer_stack_names_instructions_sizes_and_who_shares(site: Site) -> None:
    image = make_image(site)
    make_image(site, "other:latest")
    make_container(site, image, "web")
    page = get(site, f"images/i/{image.short_id}/layers/")
    assert "RUN npm install" in page and "ADD file:1 in /" in page
    assert page.count('class="slab') >= 3
    assert "shared by 2 images" in page
    assert "its own writable layer" in page


def test_names_come_and_go_and_the_last_one_stays(site: Site) -> None:
    image = make_image(site)
    base = f"{site.base}images/i/{image.short_id}/"
    refused = site.client.post(f"{base}tag/", {"name": "UPPER"})
    assert refused.status_code == 422 and 'value="UPPER"' in refused.content.decode()
    site.client.post(f"{base}tag/", {"name": "shop:2"})
    assert {tag.familiar for tag in image.tags.all()} == {"shop:latest", "shop:2"}
    site.client.post(f"{base}untag/", {"tag": Tag.objects.get(tag="2").pk})
    last = site.client.post(f"{base}untag/", {"tag": Tag.objects.get().pk}, follow=True)
    assert "the image&#x27;s only name" in last.content.decode()


def test_an_image_in_use_is_not_removed(site: Site) -> None:
    image = make_image(site)
    web = make_container(site, image, "web")
    base = f"images/i/{image.short_id}/remove/"
    assert "remove them first" in get(site, base)
    refused = site.client.post(site.base + base, follow=True)
    assert "The image is used by: web." in refused.content.decode()
    web.delete()
    site.client.post(site.base + base)
    assert Operation.objects.get().kind == "image.remove"


def test_a_pull_shows_its_bytes_and_its_end(site: Site) -> None:
    site.client.post(f"{site.base}images/pull/", {"name": "node:20"})
    operation = Operation.objects.get()
    layer = {"digest": digest("l"), "kind": "downloading", "current": 5, "total": 10}
    Operation.objects.update(state="running", progress={"layers": [layer]})
    page = get(site, "images/")
    assert "node:20" in page and re.search(r'max="10"\s+value="5"', page)
    site.client.post(f"{site.base}images/pull/{operation.pk}/cancel/")
    assert Operation.objects.get().cancel_requested
    error = {"id": "registry-not-found", "message": "no such tag", "context": {}}
    Operation.objects.update(state="failed", error=error)
    assert "The registry has no such image or tag." in get(site, "images/pull/")
    assert site.client.post(f"{site.base}images/pull/", {"name": "!!"}).status_code == 422


def test_the_dashboard_says_what_needs_somebody(site: Site) -> None:
    image = make_image(site)
    make_container(site, image, "web", state="running")
    make = {"namespace": site.namespace, "node": site.node, "actor": site.actor}
    failed = {"id": "step-failed", "message": "", "context": {"code": 1}}
    Build.objects.create(number=1, tag="shop", state="failed", error=failed, **make)
    assert "The command ended with code 1." in get(site, "")
    Build.objects.create(number=2, tag="shop", state="done", **make)
    page = get(site, "")
    assert "The command ended" not in page
    assert "web" in page


def test_a_new_team_is_told_what_to_do_first(site: Site) -> None:
    page = get(site, "")
    assert "From a Dockerfile to a running container" in page
    for address in ("containers/", "builds/", "images/"):
        assert 'class="empty"' in get(site, address), address


def test_what_is_not_here_says_so(site: Site) -> None:
    response = site.client.get(f"{site.base}containers/nobody/logs/")
    assert response.status_code == 404
    assert "There is no container “nobody”." in response.content.decode()
    assert site.client.get("/t/nowhere/").status_code == 404
    assert site.client.get(f"{site.base}builds/99/").status_code == 404
