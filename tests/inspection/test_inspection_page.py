"""The page: what is on it, and that names from tables do nothing there."""

import base64
import hashlib
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from browsing import CHROMIUM, Page, browse, check_page
from inspecting import Row, encode, fill, look, noise, read

from cxrlit.config import InspectConfig
from cxrlit.core.labels import LABELS
from cxrlit.data.copies import Duplicates
from cxrlit.data.image_io.decode import decode_pixels, resize_square
from cxrlit.inspection.image_sections import tabulate_duplicates
from cxrlit.inspection.inspection_page import render_survey
from cxrlit.inspection.survey import name_sample_concerns, survey_data

ConfigMaker = Callable[..., InspectConfig]
RowWriter = Callable[..., Path]

HOSTILE = (
    "<script>alert(1)<script>.png",
    "<img src=x onerror=alert(1)>.png",
    "\"'><svg onload=alert(1)>.png",
    "&lt;b&gt;{{ 7*7 }}.png",
    "[bold]x[red].png",
    "צילום חזה.png",
)


def make_page(config: InspectConfig) -> str:
    survey, sample = look(config)
    return render_survey(config, survey, sample, [*survey.concerns, *name_sample_concerns(sample)])


def test_the_page_is_whole_and_asks_for_nothing(nih_tree: Path, make_config: ConfigMaker) -> None:
    html = make_page(make_config(nih_tree))
    page = Page(html)
    assert html.startswith("<!doctype html>")
    check_page(page, html)
    assert not re.search(r"https?:|//", re.sub(r'base64,[^"]+', "", html))
    policy = next(meta["content"] for meta in page.find("meta") if "http-equiv" in meta)
    style = html.partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-" + digest + "';")
    assert "&" not in style
    assert "prefers-color-scheme: dark" in style


def test_all_that_is_drawn_is_text_too(nih_tree: Path, make_config: ConfigMaker) -> None:
    page = Page(make_page(make_config(nih_tree)))
    assert all(caption.strip() for caption in page.tables)
    radiographs = [image for image in page.find("img") if image["src"].startswith("data:image/png")]
    assert all(image["alt"].startswith("Radiograph 0") for image in radiographs)
    drawings = [image["alt"].partition(":")[0] for image in page.find("img") if image not in radiographs]
    assert drawings == [
        "Prevalence of each label, among the images of which it is known",
        "Images by the number of labels that are present",
        "Patients by the number of their images",
        "Images by age of the patient",
        "Histogram of the gray values of the sample's pixels from black to white; a table of this section has their "
        "percentiles",
    ]


def test_the_tables_say_what_was_counted(nih_tree: Path, make_config: ConfigMaker) -> None:
    config = make_config(nih_tree)
    survey, _ = look(config)
    page = Page(make_page(config))
    names = [part.name for part in survey.counts]
    for caption, values in (
        ("Positives / negatives of each label", [(part.positives, part.negatives) for part in survey.counts]),
        ("Patients with a positive image of each label", [(part.patients_with,) for part in survey.counts]),
    ):
        head, *rows = page.tables[caption]
        assert head == ["", *names]
        assert [row[0] for row in rows] == list(survey.data.labels)
        for k, row in enumerate(rows):
            assert row[1:] == [" / ".join(str(of[k]) for of in part) for part in values]
    _, *rows = page.tables["Prevalence of each label, and how far it is from that of the whole"]
    for k, row in enumerate(rows):
        shares = [part.prevalence[k] for part in survey.counts]
        changes = ["", *(f" {100 * (share / shares[0] - 1):+.1f} %" for share in shares[1:])]
        assert row[1:] == [f"{100 * share:.1f} %{change}" for share, change in zip(shares, changes, strict=True)]
    for part in survey.counts:
        _, *rows = page.tables[f"Labels together, {part.name}"]
        for numbers, shares, row in zip(part.together, part.conditional, rows, strict=True):
            texts = [f"{number} ({100 * share:.1f} %)" for number, share in zip(numbers, shares, strict=True)]
            assert row[1:] == texts
    made = dict(page.tables["Hashes, versions and settings"])
    assert made["split hash"] == survey.data.split_hash  # type: ignore[attr-defined]
    assert made["index hash"] == survey.data.index_hash
    assert made["data.split_seed"] == "0"
    assert made["n_sample"] == "2000"


def test_unknown_targets_are_counted(nih_tree: Path, make_config: ConfigMaker) -> None:
    page = Page(make_page(make_config(nih_tree, "labels=[Effusion,Fracture]")))
    _, effusion, fracture = page.tables["Positives / negatives / unknown of each label"]
    positives, negatives, unknown = map(int, effusion[1].split(" / "))
    assert unknown == 0
    assert fracture[1] == f"0 / 0 / {positives + negatives}"
    assert page.tables["Prevalence of each label, and how far it is from that of the whole"][2][1:] == ["–"] * 4
    assert any("no image has a known label for Fracture: not trained, not scored" in text for text in page.texts)


def test_the_contact_sheet_shows_the_images(nih_tree: Path, make_config: ConfigMaker) -> None:
    config = make_config(nih_tree)
    survey, sample = look(config)
    html = make_page(config)
    shown = {}
    for source, alt in re.findall(r'<img src="data:image/png;base64,([^"]+)"[^>]*alt="([^"]+)"', html):
        pixels = cv2.imdecode(np.frombuffer(base64.b64decode(source), np.uint8), cv2.IMREAD_UNCHANGED)
        shown[alt.removeprefix("Radiograph ").partition(":")[0]] = pixels
    expected = {row for rows in sample.examples.values() for row in rows}
    assert set(shown) == set(survey.rows["image"].iloc[sorted(expected)])
    for row in expected:
        pixels = resize_square(decode_pixels(Path(survey.rows["path"].iloc[row]).read_bytes()), 128, "pad")
        np.testing.assert_array_equal(shown[survey.rows["image"].iloc[row]], pixels)
    figures = [" ".join(re.sub(r"<[^>]+>", " ", text).split()) for text in re.findall(r"<figcaption>(.*?)</f", html)]
    first = survey.rows.iloc[sample.examples["Effusion"][0]]
    findings = ", ".join(label for label in survey.data.labels if first[label] == 1)
    assert f"{first['image']} patient {first['patient']} view PA, {first['split']} {findings}" in figures


def test_the_same_data_give_the_same_page(nih_tree: Path, make_config: ConfigMaker) -> None:
    html = make_page(make_config(nih_tree))
    assert make_page(make_config(nih_tree, "num_workers=1")) == html
    assert make_page(make_config(nih_tree, "seed=1")) != html


def test_hostile_names_are_text(write_rows: RowWriter, make_config: ConfigMaker) -> None:
    rare = [label for label in LABELS if label not in {"Mass", "Effusion"}]
    rows = [Row(name, encode(noise(k)), rare[k], f"<b>{k}</b>") for k, name in enumerate(HOSTILE)]
    rows += [
        Row("<script>alert(2)</script>.png", None, "Mass", "p1"),
        Row("a\u202egnp.png", None, "Mass", "p2"),
        Row("<s>&corrupt;.png", b"<p>", "Nodule", "p3"),
        Row("<i>twin1.png", encode(noise(0)), "Nodule", "<u>p4"),
    ]
    root = write_rows(fill([*rows, Row("<i>flat.png", encode(np.zeros((9, 9), np.uint8)), "Effusion", "p5")]))
    # The lists hold names without spaces alone: this test wants the table's names.
    for name in ("train_val_list.txt", "test_list.txt"):
        (root / name).unlink()
    html = make_page(make_config(root, "data.max_dropped=0"))
    page = Page(html)
    allowed = "html head meta title link style body header h1 h2 h3 p nav ul li a main section div table caption span "
    allowed += "thead tbody tr th td bdi data figure figcaption img strong"
    assert {tag for tag, _ in page.elements} <= set(allowed.split())
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    everything = "\n".join(page.texts)
    for name in (*HOSTILE, "<script>alert(2)</script>.png", "<s>&corrupt;.png", "<i>twin1.png", "<i>flat.png"):
        assert name in everything
    assert "<b>0</b>" in everything
    assert "<u>p4" in everything
    assert "\u202e" not in html
    assert "a\\u202egnp.png" in everything
    alts = {image["alt"] for image in page.find("img")}
    assert "Radiograph <img src=x onerror=alert(1)>.png: Cardiomegaly" in alts


def test_each_of_several_data_sets_is_counted(nih_tree: Path, make_config: ConfigMaker) -> None:
    config = make_config(nih_tree)
    data = read(config)
    sources = np.where(data.index["patient"].astype(int) % 2, "odd", "even")
    divided = replace(data, sources=("even", "odd"), index=data.index.assign(source=sources), official={})
    survey = survey_data(divided, config.data)
    page = Page(render_survey(config, survey, None, []))
    head, *rows = page.tables["Data sets"]
    assert head == ["data set", "images", "patients"]
    assert {tuple(row) for row in rows} == {
        (name, str((sources == name).sum()), str(data.index["patient"][sources == name].nunique()))
        for name in ("odd", "even")
    }
    assert "Data sets" not in Page(make_page(config)).tables


def test_only_files_in_several_parts_are_a_leak() -> None:
    names = [f"{number}.png" for number in range(12)]
    groups = [Duplicates(names, ["1", "2"], ["train"]), Duplicates(["a.png", "b.png"], ["3"], ["test", "val"])]
    assert [[cell.text for cell in row] for row in tabulate_duplicates(groups).grid.rows] == [
        [f"{', '.join(names[:10])} and 2 more", "1, 2", "train"],
        ["a.png, b.png", "3", "test, val: leak"],
    ]


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium to open the page with")
@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_opens_the_page(nih_tree: Path, make_config: ConfigMaker, tmp_path: Path, width: int) -> None:
    assert CHROMIUM is not None
    path = tmp_path / "page.html"
    html = make_page(make_config(nih_tree))
    path.write_text(html)
    errors, pixels = browse(path, tmp_path, width)
    assert errors == []
    assert pixels.shape[:2] == (2000, width)
    assert len(np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0)) > 50
    assert (pixels != pixels[0, 0]).any(axis=(1, 2)).mean() > 0.5
    path.write_text(html.replace("<style>", "<style>/* changed */"))  # the policy holds, and a fault is seen
    assert any("Content Security Policy" in line for line in browse(path, tmp_path, width)[0])
