"""notebooks/: no outputs in git, every cell compiles, every link resolves, and all run in order."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny import REPO, plain_environment

NOTEBOOKS = sorted((REPO / "notebooks").glob("*.ipynb"))
PNG = b"\x89PNG\r\n"

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read_cells(path: Path, kind: str) -> list[dict[str, Any]]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == kind]


@each_notebook
def test_a_notebook_has_no_outputs(path: Path) -> None:
    for cell in read_cells(path, "code"):
        assert cell["outputs"] == [], cell["source"]
        assert cell["execution_count"] is None, cell["source"]


@each_notebook
def test_every_cell_compiles(path: Path) -> None:
    for cell in read_cells(path, "code"):
        magic, _, rest = "".join(cell["source"]).partition("\n")
        if not magic.startswith("%%"):
            rest = f"{magic}\n{rest}"
        if magic.startswith("%%bash"):
            assert subprocess.run(["bash", "-n"], input=rest, text=True, check=False).returncode == 0, rest
        else:
            compile(rest, path.name, "exec")


@each_notebook
def test_every_link_resolves(path: Path) -> None:
    text = "".join(line for cell in read_cells(path, "markdown") for line in cell["source"])
    links = re.findall(r"\]\(([^)#]+)", text)
    assert links
    for link in links:
        assert (path.parent / link).exists(), link


def test_every_notebook_is_a_page_of_the_site() -> None:
    listed = re.findall(r": notebooks/([\w-]+)\.md$", (REPO / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    assert listed == [path.stem for path in NOTEBOOKS]


@pytest.mark.slow
def test_the_notebooks_run_and_become_pages_with_pictures(tmp_path: Path) -> None:
    script = [sys.executable, str(REPO / "docs" / "run_notebooks.py"), str(tmp_path / "work"), str(tmp_path / "pages")]
    environment = plain_environment(PYTHONPATH=str(REPO))
    done = subprocess.run(script, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for path in NOTEBOOKS:
        page = (tmp_path / "pages" / f"{path.stem}.md").read_text(encoding="utf-8")
        assert ".ipynb)" not in page
        pictures = list((tmp_path / "pages" / f"{path.stem}_files").glob("*.png"))
        assert pictures
        assert all(picture.read_bytes().startswith(PNG) for picture in pictures)
