"""Case 14: the first administrator is whoever holds the code of the terminal, and nobody else:
five tries, 30 minutes, once, and a new start's code voids the one before."""

from __future__ import annotations

import io
import re
import threading
from datetime import timedelta

import pytest
from django.db import connections
from django.test import Client
from django.utils import timezone

from console.management.commands.first_run import Command
from console.models import SetupCode, Team, User
from console.setup_code import LIFETIME, TRIES, code_check, code_make
from tests.unit.console_rows import PASSWORD

FORM = {"username": "ada", "password": PASSWORD, "team": "Harbour crew"}
WRONG = "AAAA-BBBB-CCCC"


def send(code: str, client: Client | None = None, **changes: str) -> int:
    return (client or Client()).post("/setup/", {"code": code, **FORM, **changes}).status_code


def start() -> str:
    """The code a start of the site prints; empty when it prints none."""
    out = io.StringIO()
    command = Command(stdout=out)
    command._administrator("http://127.0.0.1:8000/")
    found = re.search(r"set-up code  (\S+)", out.getvalue())
    return found[1] if found else ""


@pytest.mark.django_db
class TestTheCode:
    def test_it_opens_once(self) -> None:
        code = start()
        assert send(code) == 302
        assert User.objects.get().is_superuser
        # Used: neither it nor the page is there any more, also for who signs out.
        assert send(code, username="eve") == 302
        assert Client().get("/setup/").url == "/sign-in/"
        assert [user.username for user in User.objects.all()] == ["ada"]
        assert not SetupCode.objects.exists()
        assert not code_check(code)

    def test_an_administrator_from_the_environment_needs_none(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("DJANGO_SUPERUSER_USERNAME", "root")
        monkeypatch.setenv("DJANGO_SUPERUSER_PASSWORD", PASSWORD)
        assert start() == ""
        assert not SetupCode.objects.exists()
        assert Client().get("/setup/").url == "/sign-in/"

    def test_five_tries_whoever_makes_them(self) -> None:
        code = start()
        near = code[:-1] + ("2" if code[-1] != "2" else "3")
        for guess in (WRONG, near, "' OR 1=1", code[:-1], "*" * 5000):
            assert send(guess) == 422
        assert send(code) == 422
        assert not User.objects.exists()

    def test_the_fifth_try_may_be_the_right_one(self) -> None:
        code = start()
        for _ in range(TRIES - 1):
            assert send(WRONG) == 422
        assert send(f" {code.lower().replace('-', ' ')} ") == 302

    def test_looking_costs_no_try(self) -> None:
        code = start()
        for _ in range(2 * TRIES):
            Client().get("/setup/")
            assert send("", username="x") == 422  # nothing entered is no try
            assert send(code, password="short") == 422
        assert SetupCode.objects.get().tries_left == TRIES
        assert send(code) == 302

    @pytest.mark.parametrize(("late", "status"), [(-1, 302), (1, 422)])
    def test_thirty_minutes(self, late: int, status: int) -> None:
        assert timedelta(minutes=30) == LIFETIME
        code = start()
        row = SetupCode.objects.get()
        assert abs(row.expires_at - timezone.now() - LIFETIME) < timedelta(seconds=5)
        SetupCode.objects.update(expires_at=timezone.now() - timedelta(seconds=late * 10))
        assert send(code) == status

    def test_a_restart_voids_the_one_before_and_gives_five_tries_again(self) -> None:
        first = start()
        for _ in range(TRIES):
            send(WRONG)
        second = start()
        assert SetupCode.objects.count() == 1
        assert send(first) == 422
        assert send(second) == 302

    def test_it_is_kept_as_its_hash_and_hard_to_guess(self) -> None:
        codes = {code_make() for _ in range(50)}
        assert len(codes) == 50
        assert all(
            re.fullmatch(r"([2-9A-HJ-NP-Z]{4}-){2}[2-9A-HJ-NP-Z]{4}", code) for code in codes
        )
        code = code_make()
        row = SetupCode.objects.values().get()
        kept = str(row)
        assert code not in kept and code.replace("-", "") not in kept
        assert code not in Client().get("/setup/").content.decode()

    def test_without_a_code_nothing_opens(self) -> None:
        for guess in ("", WRONG, "-", "0" * 64):
            assert send(guess) == 422
        assert not User.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_of_two_at_once_one_becomes_the_administrator() -> None:
    code = start()
    ready, answers = threading.Barrier(4), []

    def person(name: str) -> None:
        try:
            ready.wait(10)
            answers.append(send(code, username=name))
        finally:
            connections.close_all()

    people = [threading.Thread(target=person, args=(f"person-{n}",)) for n in range(4)]
    for one in people:
        one.start()
    for one in people:
        one.join()
    assert User.objects.count() == 1
    # Who was slower is told on the page, or sent to sign in.
    assert sorted(set(answers) - {422}) == [302]
    assert len(answers) == 4
    assert Team.objects.count() == 1
