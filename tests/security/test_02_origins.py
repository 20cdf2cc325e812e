"""Case 2: foreign, sibling, `null` and missing Origins are refused on every websocket, logged."""

from __future__ import annotations

import pytest
from django.http import HttpRequest
from django.test import override_settings

from console.consumers.access import origin_refusal, request_of
from tests.box_site import BoxSite
from tests.security.test_01_anonymous_sockets import refused
from tests.sockets import signed_in


async def test_other_origins_are_refused_and_logged(box_site: BoxSite) -> None:
    box = box_site.run("sleep 600")
    session = box_site.terminal(box)
    port = box_site.site.port
    origins = [
        "",
        "null",
        "http://evil.example",
        f"http://evil.127.0.0.1:{port}",
        f"http://127.0.0.1.evil.example:{port}",
        f"https://127.0.0.1:{port}",
        f"http://127.0.0.1:{port + 1}",
        "http://127.0.0.1",
        f"http://localhost:{port}",
        "file://",
    ]
    async with signed_in(box_site.url) as person:
        for path in ("/ws/events/", f"/ws/logs/{box.uid}/", f"/ws/terminals/{session}/"):
            for origin in origins:
                assert await refused(person, path, Origin=origin) == 403, (path, origin)
            async with person.socket(path) as socket:
                await socket.until(lambda s: s.of("hello"))
        # DNS rebinding: the Host that was asked for must be one of ours.
        rebound = {"Host": f"evil.example:{port}", "Origin": f"http://evil.example:{port}"}
        assert await refused(person, "/ws/events/", **rebound) == 403
    log = (box_site.site.home / "logs" / "web.log").read_text()
    assert "refused /ws/events/: no origin" in log
    assert "refused /ws/events/: origin 'null' is not" in log


def request(origin: str, host: str, **headers: str) -> HttpRequest:
    given = {"origin": origin, "host": host, **headers}
    return request_of(
        {
            "path": "/ws/events/",
            "headers": [(name.encode(), value.encode()) for name, value in given.items()],
            "server": ("127.0.0.1", 8000),
        }
    )


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("https://quayside.example", True),
        ("http://quayside.example", False),
        ("https://sibling.example", False),
        ("https://a.trusted.example", True),
        ("https://trusted.example.evil", False),
        ("https://elsewhere.example:8443", True),
        ("https://elsewhere.example", False),
    ],
)
def test_behind_a_proxy_that_ends_tls(origin: str, allowed: bool) -> None:
    """Django's own rule for forms: the scheme by SECURE_PROXY_SSL_HEADER, or a trusted origin."""
    with override_settings(
        ALLOWED_HOSTS=["*"],
        SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https"),
        CSRF_TRUSTED_ORIGINS=["https://*.trusted.example", "https://elsewhere.example:8443"],
    ):
        found = origin_refusal(
            request(origin, "quayside.example", **{"x-forwarded-proto": "https"})
        )
    assert (found == "") is allowed, found


def test_every_host_allowed_lets_no_other_origin_in() -> None:
    with override_settings(ALLOWED_HOSTS=["*"]):
        assert origin_refusal(request("http://evil.example", "quayside.example"))
        assert origin_refusal(request("http://a.quayside.example", "quayside.example"))
        assert not origin_refusal(request("http://quayside.example", "quayside.example"))
