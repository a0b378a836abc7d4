"""People who look at the page of ``cxrlit demo``, in Chromium."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from browsing import CHROMIUM
from demos import PATIENCE_S, Served
from playwright.sync_api import Browser, Page, sync_playwright


@contextmanager
def open_browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # A name of somebody else's, which leads here.
        rule = "--host-resolver-rules=MAP evil.example 127.0.0.1"
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", rule])
        yield browser
        browser.close()


@contextmanager
def visit(browser: Browser, served: Served, **options: Any) -> Iterator[Page]:
    """A person with the page before them, which asks nobody else for anything and complains of nothing."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
    context.set_default_timeout(1000 * PATIENCE_S)
    hosts, complaints = set(), []
    context.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
    page = context.new_page()
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(served.address)
    page.get_by_text("Choose a radiograph, or try a drawn one").wait_for()
    yield page
    context.close()
    assert hosts <= {served.host, ""}  # a picture inside of the page has no host
    # The answer to a file that cannot be used has a status that Chromium notes.
    assert [text for text in complaints if "status of 422" not in text] == []


def give(page: Page, path: Path) -> None:
    """Choose a file."""
    page.locator("#file").set_input_files(path)


def upload(page: Page, path: Path) -> None:
    """Choose a file, and wait for what the page says of it."""
    give(page, path)
    page.locator("#said:not(:has-text('waiting for its result'))", has_text=path.name).wait_for()


def read_table(page: Page) -> dict[str, list[str]]:
    """The cells of all numbers, by label."""
    page.locator("#findings summary").click()
    rows = page.locator("#findings tbody tr").all()
    page.locator("#findings tbody tr").first.wait_for()
    return {row.locator("th").inner_text(): row.locator("td").all_inner_texts() for row in rows}
