"""Signing in, and the first administrator."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib.auth.forms import AuthenticationForm
from django.contrib.auth.password_validation import validate_password
from django.contrib.auth.validators import UnicodeUsernameValidator
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils.text import slugify
from django.utils.translation import gettext_lazy as _

from console.forms.base import Form, mono
from console.models import SetupCode, Team, User
from console.setup_code import code_check, code_take, setup_is_open
from engine.services.namespaces import namespace_create


class SignInForm(AuthenticationForm):
    username = forms.CharField(
        label=_("User name"),
        widget=forms.TextInput(
            attrs={"autofocus": True, "autocapitalize": "none", "autocomplete": "username"}
        ),
    )
    password = forms.CharField(
        label=_("Password"),
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "current-password"}),
    )
    error_messages = {
        "invalid_login": _("User name and password do not fit together. Try again."),
        "inactive": _("This account is closed. Ask an administrator."),
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, label_suffix="", **kwargs)
        self.use_required_attribute = False


class SetupClosed(Exception):
    """The first administrator exists already."""


class SetupForm(Form):
    """The code is checked last, so that a typing mistake elsewhere costs no try."""

    code = forms.CharField(
        label=_("Set-up code"),
        help_text=_("The start command printed it in its terminal."),
        error_messages={"required": _("Enter the code from the terminal.")},
        widget=forms.TextInput(
            attrs=mono(
                **{"class": "code-input", "placeholder": "XXXX-XXXX-XXXX", "autofocus": True}
            )
        ),
    )
    username = forms.CharField(
        label=_("User name"),
        max_length=150,
        validators=[UnicodeUsernameValidator()],
        error_messages={"required": _("Choose a user name.")},
        widget=forms.TextInput(attrs={"autocapitalize": "none", "autocomplete": "username"}),
    )
    password = forms.CharField(
        label=_("Password"),
        strip=False,
        help_text=_("At least 10 characters."),
        error_messages={"required": _("Choose a password.")},
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}, render_value=True),
    )
    team = forms.CharField(
        label=_("Team name"),
        max_length=80,
        help_text=_("Images and containers belong to a team. You can be alone in it."),
        error_messages={"required": _("Give your team a name.")},
        widget=forms.TextInput(attrs={"autocomplete": "organization"}),
    )

    def clean_password(self) -> str:
        password: str = self.cleaned_data["password"]
        validate_password(password, User(username=self.cleaned_data.get("username", "")))
        return password

    def clean(self) -> dict[str, Any]:
        if not self.errors and not code_check(self.cleaned_data["code"]):
            self.add_error("code", self._why_not())
        return self.cleaned_data

    @staticmethod
    def _why_not() -> ValidationError:
        left = SetupCode.objects.values_list("tries_left", flat=True).first() or 0
        if left > 0:
            return ValidationError(
                _("That is not the code, or it is older than 30 minutes. Tries left: %(n)s."),
                params={"n": left},
            )
        return ValidationError(
            _("This code cannot be used any more. Start Quayside again: it prints a new one.")
        )

    def save(self) -> tuple[User, Team]:
        """The administrator, and the home's team under its new name.

        Raises SetupClosed when somebody else was faster."""
        with transaction.atomic():
            # Taking the code away is what only one can do.
            if not code_take(self.cleaned_data["code"]) or not setup_is_open():
                raise SetupClosed
            user = User.objects.create_superuser(
                self.cleaned_data["username"], password=self.cleaned_data["password"]
            )
            return user, self._team(self.cleaned_data["team"])

    @staticmethod
    def _team(name: str) -> Team:
        slug = slugify(name)[:40].strip("-") or "team"
        team = Team.objects.order_by("pk").first()
        if team is None:
            return Team.objects.create(name=name, slug=slug, namespace=namespace_create(slug))
        team.name, team.slug = name, slug
        team.save(update_fields=["name", "slug"])
        return team
