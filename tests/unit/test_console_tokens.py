"""Personal tokens: an administrator makes one, sees it once, and revokes it."""

from __future__ import annotations

import hashlib
import re
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from console.models import User
from engine.api.server import _token_owner
from engine.errors import PolicyDenied
from engine.models import ApiToken
from tests.unit.console_rows import Site, make_site

pytestmark = pytest.mark.django_db
PAGE = "/me/tokens/"


@pytest.fixture
def site() -> Site:
    found = make_site()
    User.objects.filter(pk=found.user.pk).update(is_superuser=True)
    return found


def make(client: Client, **fields: str) -> str:
    response = client.post(PAGE, {"name": "laptop", "days": "90", **fields})
    assert response.status_code == 200
    assert response.headers["Cache-Control"] == "no-store"
    found = re.search(r'id="token">(qst_[\w-]{43})<', response.content.decode())
    assert found
    return found[1]


def test_a_token_is_shown_once_and_kept_as_its_digest(site: Site) -> None:
    token = make(site.client)
    row = ApiToken.objects.get()
    assert row.digest == hashlib.sha256(token.encode()).hexdigest()
    assert row.expires_at is not None
    assert timedelta(days=89) < row.expires_at - timezone.now() < timedelta(days=91)
    again = site.client.get(PAGE).content.decode()
    assert "laptop" in again
    assert token not in again
    assert _token_owner(token) == f"user:{site.user.pk}"
    row.refresh_from_db()
    assert row.last_used_at is not None


def test_a_revoked_one_opens_nothing_any_more(site: Site) -> None:
    token = make(site.client, days="")
    row = ApiToken.objects.get()
    assert row.expires_at is None
    assert site.client.post(f"{PAGE}revoke/", {"id": row.pk}).status_code == 302
    with pytest.raises(PolicyDenied):
        _token_owner(token)


def test_nor_does_one_that_is_over_or_whose_owner_is_no_administrator(site: Site) -> None:
    token = make(site.client)
    ApiToken.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    with pytest.raises(PolicyDenied):
        _token_owner(token)
    ApiToken.objects.update(expires_at=None)
    User.objects.filter(pk=site.user.pk).update(is_superuser=False)
    with pytest.raises(PolicyDenied):
        _token_owner(token)


def test_only_administrators_have_the_page_and_only_their_own_tokens(site: Site) -> None:
    make(site.client)
    other = make_site("else")
    assert other.client.get(PAGE).status_code == 403
    User.objects.filter(pk=other.user.pk).update(is_superuser=True)
    assert "laptop" not in other.client.get(PAGE).content.decode()
    key = ApiToken.objects.get().pk
    assert other.client.post(f"{PAGE}revoke/", {"id": key}).status_code == 404
    assert ApiToken.objects.count() == 1


def test_a_token_has_a_name(site: Site) -> None:
    response = site.client.post(PAGE, {"name": " ", "days": "90"})
    assert response.status_code == 422
    assert not ApiToken.objects.exists()
