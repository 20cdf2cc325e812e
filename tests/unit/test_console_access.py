"""Set-up, sign-in, sign-out, as a person sees them; who may not is in tests/security."""

from __future__ import annotations

import pytest
from django.test import Client

from console.models import SetupCode, Team, User
from console.setup_code import code_make
from engine.services.namespaces import namespace_create
from tests.unit.console_rows import PASSWORD, Site, make_container, make_image, make_site

pytestmark = pytest.mark.django_db


@pytest.fixture
def site() -> Site:
    return make_site()


SETUP = {"username": "ada", "password": PASSWORD, "team": "Harbour crew"}


def test_htmx_and_json_are_told_instead_of_redirected() -> None:
    make_site()
    page = Client().get("/t/harbour/containers/", headers={"HX-Request": "true"})
    assert (page.status_code, page["HX-Redirect"]) == (401, "/sign-in/")
    data = Client().get("/t/harbour/containers/", headers={"Accept": "application/json"})
    assert (data.status_code, data.json()) == (401, {"error": "signed-out"})


def test_set_up_makes_the_administrator_and_names_the_homes_team() -> None:
    namespace = namespace_create("team")
    Team.objects.create(namespace=namespace, slug="team", name="Team")
    client = Client()
    response = client.post("/setup/", {"code": code_make().lower(), **SETUP})
    assert response.headers["Location"] == "/t/harbour-crew/"
    assert User.objects.get().is_superuser
    assert Team.objects.get().namespace_id == namespace.pk
    assert not SetupCode.objects.exists()
    assert client.get("/t/harbour-crew/").status_code == 200
    assert Client().get("/setup/")["Location"] == "/sign-in/"


def test_a_wrong_code_costs_a_try_and_keeps_what_was_typed() -> None:
    code = code_make()
    client = Client()
    for left in (4, 3, 2, 1):
        response = client.post("/setup/", {"code": "AAAA-BBBB-CCCC", **SETUP})
        assert response.status_code == 422
        assert f"Tries left: {left}" in response.content.decode()
        assert 'value="Harbour crew"' in response.content.decode()
    client.post("/setup/", {"code": "AAAA-BBBB-CCCC", **SETUP})
    assert (
        "cannot be used any more"
        in client.post("/setup/", {"code": code, **SETUP}).content.decode()
    )
    assert not User.objects.exists()


def test_sign_in_and_out(site: Site) -> None:
    site.user.set_password(PASSWORD)
    site.user.save()
    client = Client()
    wrong = client.post("/sign-in/", {"username": site.user.username, "password": "nonsense"})
    assert wrong.status_code == 422
    assert "do not fit together" in wrong.content.decode()
    assert f'value="{site.user.username}"' in wrong.content.decode()
    right = client.post(
        "/sign-in/?next=/t/harbour/builds/",
        {"username": site.user.username, "password": PASSWORD, "next": "/t/harbour/builds/"},
    )
    assert right["Location"] == "/t/harbour/builds/"
    assert client.get("/session/").json() == {"reason": "ok", "signed_in": True}
    assert client.get("/sign-out/").status_code == 405
    client.post("/sign-out/")
    assert client.get("/session/").json() == {"reason": "signed-out", "signed_in": False}


def test_a_foreign_next_is_not_followed(site: Site) -> None:
    site.user.set_password(PASSWORD)
    site.user.save()
    fields = {"username": site.user.username, "password": PASSWORD}
    response = Client().post("/sign-in/", {**fields, "next": "https://elsewhere.example/"})
    assert response["Location"] == "/"


def test_why_a_socket_was_refused(site: Site) -> None:
    container = make_container(site, make_image(site), "web")
    ask = lambda **query: site.client.get("/session/", query).json()["reason"]  # noqa: E731
    assert ask(kind="logs", id=container.uid) == "ok"
    assert ask(kind="logs", id="0" * 64) == "gone"
    assert ask(kind="terminal", id="no uuid") == "gone"
    assert ask(kind="build", id="99999") == "gone"


def test_language_is_kept_and_shown(site: Site) -> None:
    site.client.post("/language/", {"language": "ko", "next": site.base})
    site.user.refresh_from_db()
    assert site.user.language == "ko"
    page = site.client.get(site.base).content.decode()
    assert '<html lang="ko"' in page
    assert "컨테이너" in page


def test_a_form_without_its_token_says_what_to_do(site: Site) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(site.user)
    response = client.post("/sign-out/")
    assert response.status_code == 403
    assert "too old" in response.content.decode()
