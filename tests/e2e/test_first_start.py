"""A new home on a machine that reaches no registry: the code, the administrator, the sample."""

from __future__ import annotations

import pwd
import re
import time
from pathlib import Path

from playwright.sync_api import Browser, expect

from tests.site import running_site

PASSWORD = "lantern-over-water-3"


def test_from_the_set_up_code_to_the_running_sample(browser: Browser) -> None:
    began = time.monotonic()
    with running_site(
        QUAYSIDE_SAMPLE="1", DJANGO_SUPERUSER_USERNAME="", DJANGO_SUPERUSER_PASSWORD=""
    ) as site:
        site.wait_for("The sample runs at")
        # Three minutes are allowed from the clone on; packages are installed already here.
        assert time.monotonic() - began < 60
        found = re.search(r"set-up code +([A-Z0-9-]{14})", site.output)
        assert found, site.output

        context = browser.new_context()
        context.set_default_timeout(15_000)
        page = context.new_page()
        page.goto(site.url)
        expect(page).to_have_url(f"{site.url}/setup/")
        page.fill("input[name=code]", found[1])
        page.fill("input[name=username]", "ann")
        page.fill("input[name=password]", PASSWORD)
        page.fill("input[name=team]", "Quay")
        page.locator("form button.button-primary").click()
        page.wait_for_url("**/t/*/")
        with context.expect_page() as opened:
            page.locator(
                "a[href='http://127.0.0.1:3080/'], a[href^='http://127.0.0.1:']"
            ).first.click()
        expect(opened.value.locator("h1")).to_have_text("Hello from a container")

        # The code is used up, and nobody can set up a second time.
        page.goto(f"{site.url}/setup/")
        assert not page.url.endswith("/setup/")
        context.close()

        web = pwd.getpwnam("quayside").pw_uid
        owners = [_uids(pid) for pid in site.pids("web")[1:]]
        assert owners
        assert all(uids == {web} for uids in owners)
        for program in ("engined", "worker-containers", "worker-builds"):
            assert _uids(site.pids(program)[0]) == {0}


def _uids(pid: int) -> set[int]:
    """Real, effective, saved and file system user of a process."""
    found = re.search(r"^Uid:\s+(.*)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found
    return {int(uid) for uid in found[1].split()}
