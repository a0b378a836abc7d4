"""The page of ``cxrlit demo``, served for a test, and people who look at it."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from browsing import CHROMIUM
from playwright.sync_api import Browser, Page, sync_playwright

PATIENCE_MS = 30_000


class Served(NamedTuple):
    """A page that is served.

    Attributes:
        address: Where.
        folder: The only place where it can leave temporary files, its own and those of its libraries.
    """

    address: str
    folder: Path

    def list_files(self) -> set[str]:
        """The names of what lies there."""
        return {path.name for path in self.folder.rglob("*") if path.is_file()}


@contextmanager
def serve(bundle: Path, folder: Path, *options: str) -> Iterator[Served]:
    """The command itself, in a process of its own, until SIGTERM ends it: then there is nothing left of it."""
    command = [sys.executable, "-m", "cxrlit", "demo", str(bundle), "--port", "0"]
    # A proxy that is not there: what asks for anything beyond this machine fails.
    elsewhere = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9", "GRADIO_SHARE": "True"}
    environment = {**os.environ, **elsewhere, "TMPDIR": str(folder)}
    log = folder.with_suffix(".log")
    with log.open("w") as errors:
        process = subprocess.Popen(
            [*command, *options], env=environment, cwd=folder, stdout=subprocess.PIPE, stderr=errors, text=True
        )
    try:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        found = next(filter(None, (re.search(r"http://127\.0\.0\.1:\d+", line) for line in lines)), None)
        assert found, log.read_text()
        yield Served(found[0], folder)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
        assert not list(folder.glob("cxrlit-demo-*"))
        assert log.read_text() == ""
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


@contextmanager
def open_browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def visit(browser: Browser, served: Served, **options: Any) -> Iterator[Page]:
    """A person with the page before them, which asks nobody else for anything and complains of nothing."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
    context.set_default_timeout(PATIENCE_MS)
    hosts, complaints = set(), []
    context.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
    page = context.new_page()
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(served.address)
    page.get_by_text("Choose a radiograph").wait_for()
    yield page
    context.close()
    assert hosts <= {urlsplit(served.address).netloc, ""}  # a picture inside of the page has no host
    assert complaints == []


def upload(page: Page, path: Path) -> None:
    """Give a file, and wait for what the page says of it."""
    page.locator("#file input[type=file]").set_input_files(path)
    page.locator("#said b", has_text=path.name).wait_for()


def read_table(page: Page) -> dict[str, list[str]]:
    """The cells of all numbers, by label."""
    page.locator("#findings summary").click()
    rows = page.locator("#findings tbody tr").all()
    page.locator("#findings tbody tr").first.wait_for()
    return {row.locator("th").inner_text(): row.locator("td").all_inner_texts() for row in rows}
