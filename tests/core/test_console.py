"""Tables on the screen: what stands in a cell is shown, and never acted on."""

import warnings

import pytest
from rich.console import Console
from rich.table import Table

from cxrlit.core.console import print_table, progress_steps, track


@pytest.mark.parametrize(
    ("cell", "shown"),
    [
        ("chain=[full,highres]", "chain=[full,highres]"),
        ("data.root=[/nih]", "data.root=[/nih]"),
        ("a\x1b[2Jb\u202ec", "a\\x1b[2Jb\\u202ec"),
    ],
)
def test_a_cell_is_no_markup_and_holds_nothing_that_a_terminal_acts_on(
    cell: str, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    table = Table("lever", cell)
    table.add_row("mine", cell)
    print_table(table)
    head, row = (line for line in capsys.readouterr().out.splitlines() if "[" in line)
    assert shown in head
    assert f" {shown} " in row


def test_a_notebook_has_no_progress_bar_and_no_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rich._console", Console(force_jupyter=True))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # rich warns that a bar in a notebook needs ipywidgets
        assert list(track([1, 2], "Counting")) == [1, 2]
        with progress_steps(1) as step:
            step("counting")
