"""A container's files on its page: looked at, downloaded, put there, seen among its changes,
committed."""

from __future__ import annotations

import re
from pathlib import Path

from playwright.sync_api import Dialog, expect

from tests.e2e import pages
from tests.e2e.conftest import Visitor


def test_files_are_looked_at_put_there_and_committed(someone: Visitor, tmp_path: Path) -> None:
    page = someone.open("/t/team/builds/new/")
    page.fill(
        "textarea[name=dockerfile]",
        "FROM node\nRUN mkdir /data && echo hello > /data/hello.txt\n"
        'STOPSIGNAL SIGKILL\nCMD ["sleep", "900"]\n',
    )
    page.fill("input[name=tag]", "filed")
    page.locator("[data-build-submit]").click()
    page.wait_for_url(re.compile(r"/builds/\d+/$"))
    pages.build_ends(page)
    pages.run_image(page, "filed", "filed")
    pages.container(page, "filed", "files")

    rows = page.locator("[data-files] tbody tr")
    rows.locator("a.name", has_text=re.compile(r"^data$")).click()
    rows.locator("a.name", has_text="hello.txt").click()
    expect(page.locator("[data-files] pre")).to_have_text("hello\n")
    with page.expect_download() as download:
        page.locator(".tools a[download]").click()
    assert download.value.suggested_filename == "hello.txt"
    assert Path(download.value.path()).read_text() == "hello\n"

    # Chosen, then dropped; what would be replaced is asked about.
    page.locator(".path a").last.click()
    (tmp_path / "mine.conf").write_text("mine\n")
    page.set_input_files("[data-put-files]", str(tmp_path / "mine.conf"))
    mine = rows.locator("a.name", has_text="mine.conf")
    expect(mine).to_be_visible()
    asked: list[str] = []

    def agree(dialog: Dialog) -> None:
        asked.append(dialog.message)
        dialog.accept()

    page.once("dialog", agree)
    page.evaluate(
        "() => { const transfer = new DataTransfer();"
        " transfer.items.add(new File(['dropped'], 'mine.conf'));"
        " document.querySelector('[data-put]').dispatchEvent("
        "new DragEvent('drop', { dataTransfer: transfer, bubbles: true, cancelable: true })); }"
    )
    expect(page.locator("[data-put-status]")).to_be_hidden()
    expect(page.locator("[data-files] tr", has_text="mine.conf")).to_contain_text("7 B")
    assert len(asked) == 1 and "mine.conf" in asked[0]
    mine.click()
    expect(page.locator("[data-files] pre")).to_have_text("dropped")

    page.locator(".segments a[href$='/changes/']").click()
    expect(page.locator("tbody tr", has_text="mine.conf")).to_have_count(1)
    page.fill("#q", "no such path")
    expect(page.locator("tbody tr")).to_have_count(0)

    page.locator("#container-head details.menu summary").last.click()
    with page.expect_download() as download:
        page.locator("#container-head a[href$='/export/']").click()
    assert download.value.suggested_filename == "filed.tar"
    page.locator("#container-head details.menu summary").last.click()
    page.locator("#container-head a[href$='/commit/']").click()
    page.fill("dialog input[name=name]", "filed:patched")
    page.fill("dialog input[name=message]", "with a file of mine")
    page.locator("dialog .button-primary").click()
    page.wait_for_url(re.compile(r"/images/i/\w+/layers/$"))
    expect(page.locator(".tag-chips")).to_contain_text("filed:patched")
