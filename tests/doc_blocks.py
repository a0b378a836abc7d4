"""Blocks and links of the pages: docs/*.md and those beside README.md."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tiny import REPO

PAGES = [*sorted(REPO.glob("*.md")), *sorted((REPO / "docs").glob("*.md"))]
NAMES = [str(page.relative_to(REPO)) for page in PAGES]

FENCE = re.compile(r"^```(\w*)(?: title=\"(.+?)\")?[ ]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        where: Page and line, for messages.
        language: ``console``, ``python``, ``yaml``, ``text``, ...
        title: Name of the file that the block is the text of; empty: none.
        text: Its lines.
    """

    where: str
    language: str
    title: str
    text: str

    def list_commands(self) -> list[str]:
        """The lines that a user types, in a block of the console."""
        joined = self.text.replace("\\\n", " ")
        return [line[2:] for line in joined.splitlines() if line.startswith("$ ")]


def read_blocks(name: str) -> list[Block]:
    """The blocks of a page, in order."""
    text = (REPO / name).read_text(encoding="utf-8")
    return [
        Block(f"{name}:{text.count(chr(10), 0, found.start()) + 1}", found[1], found[2] or "", found[3])
        for found in FENCE.finditer(text)
    ]


def write_files(name: str, folder: Path) -> None:
    """Write the files that a page shows."""
    for block in read_blocks(name):
        if block.title:
            path = folder / block.title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")


def split_words(line: str) -> list[str]:
    """The words of a command line as a shell has them; comments and what goes before the program are dropped."""
    words = shlex.split(line, comments=True)
    starts = ("train.py", "evaluate.py", "cxrlit")
    if words[0] in ("torchrun", "srun"):
        words = words[next(place for place, word in enumerate(words) if word in starts) :]
    return words[1:] if words[0] == "python" and words[1] in starts else words


def list_links(name: str) -> Iterator[str]:
    """Targets of links and pictures of a page."""
    text = FENCE.sub("", (REPO / name).read_text(encoding="utf-8"))
    text = re.sub(r"`[^`\n]*`", "", text)
    yield from re.findall(r"\]\(([^)\s]+)\)", text)
    yield from re.findall(r"(?:src|href)=\"([^\"]+)\"", text)


def list_anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and mkdocs make them."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    plain = [re.sub(r"[^\w\s-]", "", heading.lower()).strip() for heading in headings]
    return {re.sub(r"\s+", "-", heading) for heading in plain}
