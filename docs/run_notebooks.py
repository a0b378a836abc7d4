"""Run the notebooks in order, from the first cell to the last, and write them with their outputs as Markdown pages.

python docs/run_notebooks.py WORK PAGES

WORK is a folder for what they write, which is emptied before; PAGES is a folder for the pages.
"""

import re
import shutil
import sys
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter
from nbconvert.preprocessors import CoalesceStreamsPreprocessor, ExecutePreprocessor
from nbconvert.writers import FilesWriter

REPO = Path(__file__).resolve().parents[1]
CELL_TIMEOUT_S = 3600


def main(work: Path, pages: Path) -> None:
    """Run copies of the notebooks, so that nothing is written beside those in git."""
    shutil.rmtree(work, ignore_errors=True)
    (work / "notebooks").mkdir(parents=True)
    for path in [REPO / "train.py", REPO / "evaluate.py", *(REPO / "notebooks").glob("*.ipynb")]:
        shutil.copy(path, work / path.relative_to(REPO))
    for path in sorted((work / "notebooks").glob("*.ipynb")):
        print(f"{path.name} ...", flush=True)
        notebook = nbformat.read(path, as_version=4)
        ExecutePreprocessor(timeout=CELL_TIMEOUT_S).preprocess(notebook, {"metadata": {"path": path.parent}})
        CoalesceStreamsPreprocessor().preprocess(notebook, {})
        text, resources = MarkdownExporter().from_notebook_node(notebook, {"output_files_dir": f"{path.stem}_files"})
        FilesWriter(build_directory=str(pages)).write(adapt_links(text), resources, notebook_name=path.stem)


def adapt_links(text: str) -> str:
    """Links between notebooks and to docs/ as links between pages of the site; a text in place of a picture."""
    text = re.sub(r"\]\((\d-[\w-]+)\.ipynb\)", r"](\1.md)", text)
    return text.replace("](../docs/", "](../").replace("![png](", "![Output of the cell above](")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
