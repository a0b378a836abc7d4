"""Reads HTML pages: their elements and tables, and what a browser makes of them."""

import os
import re
import shutil
import subprocess
from html import escape, unescape
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

VOID = {"meta", "link", "img", "br", "hr", "input"}

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Page(HTMLParser):
    """Elements, attributes and tables of a page; fails where an element is not closed.

    Attributes:
        tables: Texts of the cells by row, by caption.
        numbers: The ``data`` elements of the same cells, each its value and its text.
    """

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.rows: list[list[str]] = []
        self.numbers: dict[str, list[list[list[tuple[str, str]]]]] = {}
        self.in_rows: list[list[list[tuple[str, str]]]] = []
        self.caption = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.rows, self.in_rows, self.caption = [], [], ""
        elif tag == "tr":
            self.rows.append([])
            self.in_rows.append([])
        elif tag in {"td", "th"}:
            self.rows[-1].append("")
            self.in_rows[-1].append([])
        elif tag == "data":
            self.in_rows[-1][-1].append((self.elements[-1][1]["value"], ""))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag
        if tag == "table":
            assert self.caption not in self.tables
            self.tables[self.caption], self.numbers[self.caption] = self.rows, self.in_rows

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if "caption" in self.open:
            self.caption += data
        elif "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data
            if self.open[-1] == "data":
                value, text = self.in_rows[-1][-1].pop()
                self.in_rows[-1][-1].append((value, text + data))

    def find(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


def check_page(page: Page, html: str) -> None:
    """It loads and runs nothing; every table, picture and heading is there for who cannot see."""
    assert {tag for tag, _ in page.elements}.isdisjoint({"script", "iframe", "object", "base", "form", "svg", "b", "u"})
    assert not re.search(r"@import|url\(", re.sub(r'base64,[^"]+', "", html))
    for _, attributes in page.elements:
        assert not any(name.startswith("on") or name == "style" for name in attributes)
        for name in ("src", "href"):
            assert attributes.get(name, "#").startswith(("#", "data:image/", "data:,"))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    assert {link["href"] for link in page.find("a")} <= {f"#{name}" for name in ids}
    assert all(attributes.get("scope") for attributes in page.find("th"))
    assert all(len(image["alt"]) > 20 for image in page.find("img"))
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert "default-src 'none'; img-src data:" in html
    assert any("Research use only: not a medical device." in text for text in page.texts)


def browse(path: Path, folder: Path, width: int) -> tuple[list[str], np.ndarray]:
    """What a headless Chromium has to complain about a page, and what it shows of it."""
    picture = folder / "screen.png"
    outcome = run_chromium(path, folder, width, "--enable-logging=stderr", f"--screenshot={picture}")
    image = cv2.imread(str(picture))
    assert image is not None
    return [line for line in outcome.stderr.splitlines() if "CONSOLE" in line], image


def measure_width(path: Path, folder: Path, width: int) -> int:
    """Pixels by which a page is wider than a window of that width: what can be scrolled sideways."""
    found = _look_in(path, folder, width, "`${page.scrollWidth} ${page.clientWidth}`")
    full, inner = map(int, found.split())
    assert inner == width
    return full - width


def find_wide_tables(path: Path, folder: Path, width: int) -> set[str]:
    """Captions of the tables that have to be scrolled sideways in a window of that width."""
    wide = "[...page.querySelectorAll('.scroll')].filter(region => region.scrollWidth > region.clientWidth)"
    return set(_look_in(path, folder, width, f"{wide}.map(region => region.ariaLabel).join('|')").split("|"))


def _look_in(path: Path, folder: Path, width: int, probe: str) -> str:
    """What a script finds in a page (``page``) in a window of that width."""
    html = re.sub("<meta http-equiv[^>]*>", "", path.read_text(encoding="utf-8"))  # it forbids all that looks in
    frame = folder / "frame.html"  # a window itself cannot be as narrow as a phone
    script = f"const page = frame.contentDocument.documentElement; document.title = {probe}"
    frame.write_text(
        f'<!doctype html><meta charset="utf-8"><title></title><iframe id="frame" style="border: 0; width: {width}px; '
        f'height: 2000px" srcdoc="{escape(html)}"></iframe><script>onload = () => {{ {script} }}</script>',
        encoding="utf-8",
    )
    outcome = run_chromium(frame, folder, max(width, 600), "--hide-scrollbars", "--dump-dom")
    found = re.search(r"<title>(.*)</title>", outcome.stdout)
    assert found
    return unescape(found[1])


def run_chromium(path: Path, folder: Path, width: int, *options: str) -> "subprocess.CompletedProcess[str]":
    """Opens a page without a window; the profile is in the folder."""
    command = [
        str(CHROMIUM),
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={folder / 'profile'}",
        f"--window-size={width},2000",
        *options,
        path.as_uri(),
    ]
    outcome = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env={**os.environ, "HOME": str(folder)}
    )
    assert outcome.returncode == 0, outcome.stderr
    return outcome
