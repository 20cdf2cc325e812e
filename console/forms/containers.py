"""The run form: what `docker run` says, checked for shape, as a ContainerRequest."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.http import QueryDict
from django.utils.translation import gettext_lazy as _

from console.forms.base import Form, mono
from console.forms.options import LabelsField, LimitsForm, MountsField, NamesField
from engine.containers.options import HostOptions
from engine.errors import InvalidInput
from engine.network.spec import PortBinding
from engine.services.containers import ContainerRequest

ADDRESSES = [("0.0.0.0", _("every address")), ("127.0.0.1", _("this machine only"))]
PROTOCOLS = [("tcp", "tcp"), ("udp", "udp")]


class PortsField(forms.Field):
    """Rows of host_port, container_port and protocol, from lists of equal names."""

    def clean(self, value: Any) -> tuple[PortBinding, ...]:
        found = []
        for row in value or ():
            if not row["host_port"] and not row["container_port"]:
                continue
            found.append(self._binding(row))
        return tuple(found)

    @staticmethod
    def _binding(row: dict[str, str]) -> PortBinding:
        try:
            return PortBinding(
                container_port=int(row["container_port"] or 0),
                protocol="udp" if row["protocol"] == "udp" else "tcp",
                host_ip=row["host_ip"],
                host_port=int(row["host_port"] or 0),
            )
        except (InvalidInput, ValueError) as error:
            raise ValidationError(
                _(
                    "“%(host)s → %(container)s” are no ports. Write numbers from 1 to 65535; an"
                    " empty host port means any free one."
                ),
                params={"host": row["host_port"], "container": row["container_port"]},
            ) from error


class PortsWidget(forms.Widget):
    """The template draws the rows itself; this only gathers what was posted."""

    def value_from_datadict(self, data: Any, files: Any, name: str) -> Sequence[dict[str, str]]:
        if not isinstance(data, QueryDict):
            return list(data.get(name, ()))
        columns = {key: data.getlist(key) for key in ("host_port", "container_port", "protocol")}
        address = data.get("host_ip", "0.0.0.0")
        return [
            {
                "host_port": host.strip(),
                "container_port": container.strip(),
                "protocol": protocol,
                "host_ip": address,
            }
            for host, container, protocol in zip(*columns.values(), strict=False)
        ]


def _words(text: str) -> tuple[str, ...]:
    """Split as a shell would, quotes included; ValidationError on an open quote."""
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise ValidationError(_("A quotation mark is not closed.")) from error


class RunForm(LimitsForm):
    names = {
        **LimitsForm.names,
        "host_port": "ports",
        "container_port": "ports",
        "invalid-reference": "image",
        "mounts": "volumes",
        "volume": "volumes",
    }

    image = forms.CharField(
        label=_("Image"),
        max_length=512,
        error_messages={"required": _("Choose the image to run.")},
        widget=forms.TextInput(attrs=mono(list="images", placeholder="node:latest")),
    )
    name = forms.CharField(
        label=_("Name"),
        required=False,
        max_length=128,
        help_text=_("Left empty, it gets a name of its own."),
        widget=forms.TextInput(attrs=mono(placeholder="web")),
    )
    mode = forms.ChoiceField(
        label=_("After the start"),
        choices=[("attached", _("Attached")), ("detached", _("Detached"))],
        initial="detached",
        widget=forms.RadioSelect,
    )
    interactive = forms.BooleanField(
        label=_("Keep input open (-i)"),
        required=False,
        help_text=_("What you type reaches the process."),
    )
    tty = forms.BooleanField(
        label=_("Terminal (-t)"),
        required=False,
        help_text=_("The process gets a terminal: prompts, colours, full-screen programs."),
    )
    ports = PortsField(label=_("Ports"), required=False, widget=PortsWidget)
    host_ip = forms.ChoiceField(
        label=_("Listen on"), choices=ADDRESSES, required=False, initial="0.0.0.0"
    )
    env = forms.CharField(
        label=_("Environment"),
        required=False,
        help_text=_("One KEY=value a line."),
        widget=forms.Textarea(attrs=mono(rows=3, placeholder="PORT=80")),
    )
    command = forms.CharField(
        label=_("Command"),
        required=False,
        help_text=_("Instead of the image's own."),
        widget=forms.TextInput(attrs=mono()),
    )
    entrypoint = forms.CharField(
        label=_("Entrypoint"), required=False, widget=forms.TextInput(attrs=mono())
    )
    working_dir = forms.CharField(
        label=_("Working directory"), required=False, widget=forms.TextInput(attrs=mono())
    )
    user = forms.CharField(label=_("User"), required=False, widget=forms.TextInput(attrs=mono()))
    auto_remove = forms.BooleanField(
        label=_("Remove when it exits (--rm)"),
        required=False,
        help_text=_("Its writable layer and its log go with it."),
    )

    volumes = MountsField(
        label=_("Volumes"),
        required=False,
        help_text=_(
            "One a line: name:/folder keeps what is written there; :ro makes it read-only."
        ),
        widget=forms.Textarea(attrs=mono(rows=2, placeholder="data:/var/lib/data")),
    )
    network = forms.ChoiceField(label=_("Network"), required=False, initial="bridge")
    labels = LabelsField(
        label=_("Labels"),
        required=False,
        help_text=_("One key=value a line."),
        widget=forms.Textarea(attrs=mono(rows=2)),
    )
    read_only = forms.BooleanField(
        label=_("Read-only files (--read-only)"),
        required=False,
        help_text=_("It can write to its volumes alone."),
    )
    init = forms.BooleanField(
        label=_("A first process that tidies up (--init)"),
        required=False,
        help_text=_("It passes signals on and buries processes whose parent has gone."),
    )
    no_new_privileges = forms.BooleanField(
        label=_("No new privileges"),
        required=False,
        help_text=_("Programs like sudo gain nothing inside."),
    )
    cap_add = NamesField(
        label=_("Capabilities added"),
        required=False,
        widget=forms.TextInput(attrs=mono(placeholder="NET_ADMIN")),
    )
    cap_drop = NamesField(
        label=_("Capabilities dropped"),
        required=False,
        widget=forms.TextInput(attrs=mono(placeholder="ALL")),
    )

    def __init__(self, *args: Any, networks: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        names = dict.fromkeys(("bridge", *networks))
        self.fields["network"].choices = [  # type: ignore[attr-defined]
            *((name, name) for name in names),
            ("none", _("none")),
        ]

    def clean_network(self) -> str:
        return self.cleaned_data["network"] or "bridge"

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or {}
        if data.get("network") == "none" and data.get("ports"):
            # docker lets it pass and publishes nothing; whoever wrote a port wants it.
            self.add_error("network", _("Without a network no port can be published."))
        return data

    def clean_host_ip(self) -> str:
        return self.cleaned_data["host_ip"] or "0.0.0.0"

    def clean_env(self) -> tuple[str, ...]:
        lines = [line.strip() for line in self.cleaned_data["env"].splitlines()]
        for line in lines:
            if line.startswith("="):
                raise ValidationError(
                    _("“%(line)s” has no name before the =."), params={"line": line}
                )
        return tuple(line for line in lines if line)

    def clean_command(self) -> tuple[str, ...]:
        return _words(self.cleaned_data["command"])

    def clean_entrypoint(self) -> tuple[str, ...] | None:
        return _words(self.cleaned_data["entrypoint"]) or None

    def clean_working_dir(self) -> str:
        path: str = self.cleaned_data["working_dir"]
        if path and not path.startswith("/"):
            raise ValidationError(_("Write the whole path, beginning with /."))
        return path

    def container_request(self) -> ContainerRequest:
        data = self.cleaned_data
        return ContainerRequest(
            image=data["image"],
            name=data["name"],
            command=data["command"],
            entrypoint=data["entrypoint"],
            env=data["env"],
            working_dir=data["working_dir"],
            user=data["user"],
            tty=data["tty"],
            open_stdin=data["interactive"],
            ports=data["ports"],
            auto_remove=data["auto_remove"],
            network=data["network"],
            labels=data["labels"],
            host=HostOptions(
                limits=self.limits(),
                restart=self.restart_policy(),
                read_only=data["read_only"],
                init=data["init"] or None,
                security_opt=("no-new-privileges",) if data["no_new_privileges"] else (),
                cap_add=data["cap_add"],
                cap_drop=data["cap_drop"],
                mounts=data["volumes"],
            ),
        )


class RenameForm(Form):
    name = forms.CharField(
        label=_("Name"),
        max_length=128,
        help_text=_("Other containers of its network find it by this name."),
        error_messages={"required": _("Write the new name.")},
        widget=forms.TextInput(attrs=mono()),
    )


class TerminalForm(Form):
    names = {"argv": "command"}

    kind = forms.ChoiceField(choices=[("attach", ""), ("exec", "")])
    command = forms.CharField(
        label=_("Command"),
        required=False,
        help_text=_("Left empty, the best shell of the image: bash, else sh."),
        widget=forms.TextInput(attrs=mono(placeholder="sh")),
    )
    user = forms.CharField(
        label=_("User"),
        required=False,
        help_text=_("Left empty, the one the container runs as."),
        widget=forms.TextInput(attrs=mono(placeholder="root")),
    )

    def clean_command(self) -> tuple[str, ...]:
        return _words(self.cleaned_data["command"])
