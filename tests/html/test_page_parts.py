"""Parts of a page: what a table shows of a frame, and that a page says what it leaves out."""

import base64
import re

import numpy as np
import pandas as pd
import pytest
from browsing import Page, check_page
from matplotlib.ticker import PercentFormatter

from cxrlit.html.bar_chart import draw_bars
from cxrlit.html.figures import BLUE, GRAY, drawing
from cxrlit.html.page import render_sections
from cxrlit.html.section import Image, Picture, Section
from cxrlit.html.tables import Column, Table, make_figures, make_pairs, make_reasons

PIXEL = b"\x89PNG pixel"


def render(*sections: Section) -> Page:
    with drawing():
        html = render_sections("T <b>", ["a line"], sections)
    page = Page(html)
    check_page(page, html)
    return page


def test_tables_of_ready_texts() -> None:
    page = render(
        Section(
            "Tables",
            "tables",
            tables=[
                make_figures("Figures", ["", "all"], [("<i>x", ["12 (3.4 %)"])]),
                make_pairs("Pairs", [("data", "<u>nih")]),
                make_reasons("Reasons", pd.DataFrame({"image": list("dbca"), "reason": ["gone"] * 4})),
            ],
        )
    )
    assert page.tables == {
        "Figures": [["", "all"], ["<i>x", "12 (3.4 %)"]],
        "Pairs": [["data", "<u>nih"]],
        "Reasons": [["reason", "images", "such as"], ["gone", "4", "a, b, c"]],
    }
    classes = [attributes.get("class", "") for tag, attributes in page.elements if tag == "td"]
    assert classes == ["", "", "text", "", "text"]  # figures are aligned as the number of reasons is


def test_a_long_table_says_how_much_longer_it_is() -> None:
    table = Table("Images", pd.DataFrame({"n": range(1300)}), [Column("n")], max_rows=200)
    assert (len(table.grid.rows), table.grid.n_more) == (200, 1100)
    page = render(Section("Tables", "tables", tables=[table]))
    assert "and 1,100 more" in page.texts
    assert make_figures("Few", ["", "all"], []).grid.n_more == 0


def test_shares_colour_cells() -> None:
    frame = pd.DataFrame({"n": ["a", "b", "c", "d"], "share": [0.0, 0.01, 1.0, np.nan]})
    table = Table("Shades", frame, [Column("n", is_figure=True, shade="share")], n_heads=0)
    assert [cell.shade for [cell] in table.grid.rows] == [0, 1, 10, 0]
    page = render(Section("Tables", "tables", tables=[table]))
    assert [cell.get("class") for cell in page.find("td")] == [None, "shade1", "shade10", None]


def test_the_notice_says_where_patients_are_shown() -> None:
    image = Image(PIXEL, "A radiograph of nobody")
    below = Section("Deep", "deep", sections=[Section("Deeper", "deeper", images=[image])])
    treat = "treat it like the data themselves"
    for sections, shows_patients in (([Section("A", "a")], False), ([Section("A", "a", images=[image])], True),
                                     ([Section("A", "a"), below], True)):  # fmt: skip
        [notice] = [text for text in render(*sections).texts if "not a medical device" in text]
        assert (treat in notice) == shows_patients
    assert treat in render_sections("T", [], [], names_patients=True)


def test_images_keep_the_width_that_they_are_given() -> None:
    images = [Image(PIXEL, "A radiograph of nobody", ["one", "two"], 128)]
    [image] = render(Section("Images", "images", images=images)).find("img")
    assert base64.b64decode(image["src"].removeprefix("data:image/png;base64,")) == PIXEL
    assert image["width"] == "128"
    with pytest.raises(ValueError, match="no PNG, JPEG or SVG"):
        _ = Image(b"GIF89a", "", []).address


@pytest.mark.parametrize("stacked", [False, True])
def test_bars_stand_below_each_other_or_add_up(stacked: bool) -> None:
    lengths = {"all": np.array([0.1, 0.2]), "train": np.array([0.3, np.nan])}
    with drawing():
        figure = draw_bars(["A", "B"], lengths, [GRAY, BLUE], "share", stacked=stacked, ticks=PercentFormatter(1))
        page = render(
            Section("Bars", "bars", pictures=[Picture(figure, "bars", "Bars of A and of B, of all and of train")])
        )
    [axes] = figure.axes
    bars = [(bar.get_x(), bar.get_width(), bar.get_y()) for bar in axes.patches]
    assert [width for _, width, _ in bars] == pytest.approx([0.1, 0.2, 0.3, 0])
    assert [x for x, _, _ in bars] == ([0, 0, 0.1, 0.2] if stacked else [0] * 4)
    assert (bars[0][2] == bars[2][2]) == stacked
    [image] = page.find("img")
    svg = base64.b64decode(image["src"].partition("base64,")[2]).decode()
    assert re.match(r"<\?xml .*<svg ", svg, re.S)
