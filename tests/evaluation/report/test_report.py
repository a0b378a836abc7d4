"""The report: every number of it is one of the CSV files, whatever is undefined says why, and nothing in it runs."""

import base64
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from assessed import make_assessment
from browsing import CHROMIUM, Page, browse, check_page, find_wide_tables, measure_width, run_chromium
from matplotlib.figure import Figure
from PIL import Image as PillowImage

from cxrlit.config import Precision
from cxrlit.evaluation.measure.assessment import Assessment, EvaluatedModel, write_assessment
from cxrlit.evaluation.measure.measure import measure
from cxrlit.evaluation.report.reliability_section import build_calibration_section
from cxrlit.evaluation.report.report import write_report
from cxrlit.evaluation.report.summary_section import summarise
from cxrlit.evaluation.report.terminal import print_assessment
from cxrlit.html.section import Image, Picture, Section
from cxrlit.html.tables import Column, Table

HOSTILE = (
    "<script>alert(1)</script>\"'><img src=x onerror=alert(1)> {{ 7*7 }} &lt;b&gt;",
    "$\\frac{1 胸水",
    "a\u202eb\x1b[31m",
    "Pleuraleffusionwithoutanyspacesinthenameofthelabelwhatsoever",
)
PICTURES = ("roc", "precision-recall", "calibration", "threshold", "decision-curve")

Csv = dict[str, list[dict[str, str]]]


def read_out(out: Path) -> tuple[Page, Csv]:
    """The page, and the rows of the CSV files beside it as texts."""
    page = Page((out / "report.html").read_text(encoding="utf-8"))
    files = {
        path.name: pd.read_csv(path, dtype=str, keep_default_na=False).to_dict("records")
        for path in out.glob("*.csv")
        if not path.name.startswith("predictions")
    }
    return page, files


def report(assessment: Assessment, out: Path, *extras: Section) -> tuple[Page, Csv]:
    write_assessment(assessment, out)
    assert write_report(assessment, out, extras) == out / "report.html"
    return read_out(out)


def span(row: dict[str, str], name: str) -> list[str]:
    """What a cell with an interval holds."""
    values = [row[name], row[f"{name}_low"], row[f"{name}_high"]]
    return [value for value in values if value]


def cell(value: str) -> list[str]:
    return [value] if value else []


def expect_tables(files: Csv) -> dict[str, list[tuple[str, list[list[str]]]]]:
    """Of each table of the page: the head and the numbers of each row, as the CSV files have them."""
    summary, confusion, thresholds, metrics = (
        files[name]
        for name in ("eval_summary.csv", "confusion_template.csv", "eval_thresholds.csv", "eval_metrics.csv")
    )
    parts = [row["split"] for row in summary]
    final = summary[-1]
    by_part = {part: [row for row in files["eval_per_label_auroc.csv"] if row["split"] == part] for part in parts}
    names = {part: "validation" if part == "val" else part for part in parts}
    last = names[parts[-1]]
    at_threshold = ("F1", "precision", "recall", "specificity", "balanced_accuracy")
    calibrated = any(row["slope"] for row in thresholds)
    errors = ("ece_raw", "ece", "brier_raw", "brier") if calibrated else ("ece", "brier")
    fitted = [[cell(row[name]) for name in ("slope", "intercept")] if calibrated else [] for row in thresholds]
    tables = {
        "Over all labels": [
            (
                row["split"],
                [span(row, "auroc_macro"), [row["n_labels"]], span(row, "average_precision_macro")]
                + [span(row, "f1_macro"), [row["n_labels_f1"]], span(row, "f1_micro"), span(row, "f1_weighted")]
                + [[row["n_images"]], [row["n_patients"]]],
            )
            for row in summary
        ],
        "Each label": [
            (
                row["label"],
                [span(by_part[part][k], "auroc") for part in parts]
                + [span(row, "average_precision"), cell(confusion[k]["threshold"]), span(confusion[k], "F1")]
                + [[row["positives"]], [row["images"]]],
            )
            for k, row in enumerate(by_part[parts[-1]])
        ]
        + [
            (
                "macro",
                [span(row, "auroc_macro") for row in summary]
                + [span(final, "average_precision_macro"), [], span(final, "f1_macro"), [], []],
            )
        ],
        "Threshold of each label": [
            (
                row["label"],
                [span(row, "threshold"), span(row, "f1_val"), cell(row["f1_val_elsewhere"]), *fitted[k]],
            )
            for k, row in enumerate(thresholds)
        ],
        f"Errors of the probabilities, {last}": [
            (row["label"], [span(row, name) for name in errors] + fitted[k]) for k, row in enumerate(by_part[parts[-1]])
        ]
        + [("macro", [span(final, f"{name}_macro") for name in errors] + [[] for _ in fitted[0]])],
        f"Decisions of each label, {last}": [
            (row["label"], [cell(row[name]) for name in ("threshold", "threshold_prob", "TP", "FP", "TN", "FN")])
            for row in confusion
        ],
        f"Metrics at the thresholds, {last}": [
            (row["label"], [span(row, name) for name in at_threshold]) for row in confusion
        ]
        + [("macro", [span(final, f"{name.lower()}_macro") for name in at_threshold])]
        + [(kind, [span(final, f"f1_{kind}"), [], [], [], []]) for kind in ("micro", "weighted")],
        "Images and patients of each part": [
            (row["split"], [[row["n_images"]], [row["n_patients"]]]) for row in summary
        ],
    }
    for part in parts:
        tables[f"AUROC and average precision, {names[part]}"] = [
            (
                row["label"],
                [span(row, "auroc"), cell(row["auroc_delong_low"]), cell(row["auroc_delong_high"])]
                + [span(row, "average_precision"), [row["positives"]], [row["images"]]],
            )
            for row in by_part[part]
        ]
        tables[f"Every metric, {names[part]}"] = [
            (
                row["metric"],
                [[], list(filter(None, (row["value"], row["low"], row["high"]))), cell(row["n_labels"])],
            )
            for row in metrics
            if row["part"] == part
        ]
    return tables


def check_numbers(page: Page, files: Csv) -> None:
    """Every number of the page is that of a CSV file to the digit, and what is shown of it is the same, rounded."""
    for caption, expected in expect_tables(files).items():
        assert caption in page.tables
        rows = list(zip(page.tables[caption], page.numbers[caption], strict=True))[1:]
        if caption.startswith("AUROC and"):  # the macro is in other tables too; of patients by label there is no file
            rows = [(texts[:7], numbers[:7]) for texts, numbers in rows[:-1]]
        for (head, wanted), (texts, numbers) in zip(expected, rows, strict=True):
            assert texts[0].strip() == (head if head.isprintable() else ascii(head)[1:-1])
            assert [[value for value, _ in one] for one in numbers[1 : 1 + len(wanted)]] == wanted, (caption, head)
    shown = [number for rows in page.numbers.values() for row in rows for one in row for number in one]
    for value, text in shown:
        decimals = len(text.partition(".")[2])
        assert float(text.replace(",", "")) == pytest.approx(round(float(value), decimals), abs=1e-12), (value, text)
    full = {value for value, _ in shown}
    for name, rows in files.items():
        for row in rows if name not in {"dropped.csv", "eval_decision_curves.csv"} else ():
            for column, text in row.items():
                if text and re.fullmatch(r"[-+.\de]+", text) and column not in {"split_hash", "label"}:
                    assert text in full, (name, column)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Assessment, Path]:
    assessment, out = make_assessment(), tmp_path_factory.mktemp("plain")
    report(assessment, out)
    return assessment, out


def test_the_page_is_whole(plain: tuple[Assessment, Path]) -> None:
    _, out = plain
    page, files = read_out(out)
    check_page(page, (out / "report.html").read_text(encoding="utf-8"))
    check_numbers(page, files)
    text = " ".join(page.texts)
    for fact in ("finetune-1a2b3c4d/best.ckpt", "4f1c2d9a8b7e", "each image and its mirror image", "seed: 7"):
        assert fact in text
    assert "150 images of" in text
    assert "hunter2" not in text
    assert "https://example.org/stores/nih" in text
    assert "root: nih" in text
    assert "/srv/images" not in text
    assert "why blank" not in text


def test_every_picture_is_a_file_too(plain: tuple[Assessment, Path]) -> None:
    _, out = plain
    names = {"auroc", "decisions", *(f"{kind}-{label}" for kind in PICTURES for label in ("effusion", "mass"))}
    assert {path.name for path in (out / "figures").iterdir()} == {f"{name}.png" for name in names}
    for path in (out / "figures").iterdir():
        with PillowImage.open(path) as picture:
            assert min(picture.size) > 200
            assert picture.info.keys() <= {"dpi"}  # no date, no program
            assert len(picture.getcolors(1_000_000)) > 20
    page, _ = read_out(out)
    assert len(page.find("img")) == len(names)
    for image in page.find("img"):
        svg = base64.b64decode(image["src"].partition("base64,")[2]).decode()
        assert svg.startswith("<?xml")
        assert not re.search(r"<script|<metadata|https?://(?!www\.w3\.org/)", svg)


def test_alternative_texts_carry_the_finding(plain: tuple[Assessment, Path]) -> None:
    assessment, out = plain
    page, _ = read_out(out)
    [alt] = [image["alt"] for image in page.find("img") if image["alt"].startswith("ROC curve of Effusion")]
    assert f"AUROC {assessment.final.value('auroc', 'Effusion'):.3f} [" in alt
    assert f"finds {100 * assessment.final.value('recall', 'Effusion'):.1f} %" in alt


def test_the_same_input_gives_the_same_bytes(plain: tuple[Assessment, Path], tmp_path: Path) -> None:
    assessment, out = plain
    write_report(assessment, tmp_path)
    files = [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 13
    for path in files:
        assert (tmp_path / path).read_bytes() == (out / path).read_bytes(), path


@pytest.mark.slow
def test_whatever_is_undefined_says_why(tmp_path: Path) -> None:
    labels = ("Effusion", "No positive", "Unknown", "No validation", "Few", "All")

    def spoil(tables: dict[str, pd.DataFrame]) -> None:
        tables["test"][["target_No positive", "target_Few"]] = np.float32(0)
        tables["test"].loc[:1, "target_Few"] = np.float32(1)
        tables["test"]["target_All"] = np.float32(1)
        tables["val"]["target_No validation"] = np.float32(0)
        for table in tables.values():
            table["target_Unknown"] = np.float32(np.nan)

    dropped = pd.DataFrame({"image": ["a.png", "b.png"], "path": "x", "reason": ["cannot be decoded", "is gone"]})
    page, files = report(make_assessment(labels, change=spoil, dropped=dropped), tmp_path)
    check_page(page, (tmp_path / "report.html").read_text(encoding="utf-8"))
    check_numbers(page, files)
    rows = {row[0].strip(): row for row in page.tables["Each label"][1:]}
    assert rows["Effusion"][-1].strip() == ""
    assert "AUROC test, average precision test, F1 test: no positive" in rows["No positive"][-1]
    assert "AUROC validation, AUROC test" in rows["Unknown"][-1]
    assert "threshold: validation has no positive" in rows["No validation"][-1]
    assert "patients where 5 are needed" in rows["Few"][-1]
    assert "no interval" in rows["Few"][2]
    assert "AUROC test, average precision test: no negative" in rows["All"][-1]
    text = " ".join(page.texts)
    assert "No curve of No positive" in text
    assert "No band of Few (2 patients where 5 are needed)." in text
    assert "2 images could not be evaluated" in text
    assert [row[0].strip() for row in page.tables["Images that could not be evaluated"][1:]] == [
        "cannot be decoded", "is gone",
    ]  # fmt: skip
    drawn = {path.stem for path in (tmp_path / "figures").iterdir()}
    assert {"roc-effusion", "roc-few", "threshold-no-positive", "calibration-no-validation"} <= drawn
    assert drawn.isdisjoint({"roc-no-positive", "roc-all", "roc-unknown", "threshold-no-validation"})
    assert "precision-recall-all" not in drawn
    assert "calibration-unknown" not in drawn


@pytest.mark.parametrize(
    "spoiled", ["no validation", "one patient", "nothing known", "no calibration", "given elsewhere"]
)
def test_what_an_assessment_can_lack(spoiled: str, tmp_path: Path) -> None:
    def forget(tables: dict[str, pd.DataFrame]) -> None:
        for table in tables.values():
            table["target_Mass"] = np.float32(np.nan)

    if spoiled == "no validation":
        assessment = make_assessment(("Mass",), ("test",), subject=EvaluatedModel("theirs.csv", "theirs.csv", "", ""))
    elif spoiled == "one patient":
        assessment = make_assessment(("Mass",), n_images=40, n_patients=1)
    elif spoiled == "nothing known":
        assessment = make_assessment(("Mass",), change=forget)
    elif spoiled == "no calibration":
        assessment = make_assessment(
            ("Mass",), ("val", "test"), "calibration=none", "threshold_rule=sensitivity", "min_rate=0.9"
        )
    else:
        home = make_assessment(("Mass",))
        parts = {
            name: measure(name, home.parts[part].predictions, home.point, 100)
            for name, part in (("home", "val"), ("external", "test"))
        }
        assessment = replace(home, stability=None, parts=parts)
    page, files = report(assessment, tmp_path)
    check_page(page, (tmp_path / "report.html").read_text(encoding="utf-8"))
    check_numbers(page, files)
    text = " ".join(page.texts)
    assert {
        "no validation": "there are no validation images",
        "one patient": "1 patient where 5 are needed",
        "nothing known": "no known target",
        "no calibration": "the highest with a sensitivity of at least 0.9, of the model's probabilities",
        "given elsewhere": "They were fixed elsewhere",
    }[spoiled] in text


def test_macros_say_which_labels_are_not_calibrated_and_what_is_below_chance_is_a_concern() -> None:
    def spoil(tables: dict[str, pd.DataFrame]) -> None:
        tables["val"]["target_Mass"] = np.float32(0)
        tables["test"]["prob_Effusion"] = 1 - tables["test"]["prob_Effusion"]

    assessment = make_assessment(("Effusion", "Mass"), change=spoil)
    macro = build_calibration_section(assessment).tables[0].grid.rows[-1]
    assert macro[0].text == "macro"
    assert "1 of 2 labels are calibrated, not Mass" in macro[-1].text
    below = f"below chance on test, with its whole interval: Effusion {assessment.final.value('auroc', 'Effusion'):.3f}"
    assert [below in text for text in summarise(assessment, assessment.tables()).concerns].count(True) == 1


def test_calibration_that_makes_it_clearly_worse_is_a_concern(capsys: pytest.CaptureFixture[str]) -> None:
    def spoil(tables: dict[str, pd.DataFrame]) -> None:
        tables["val"].loc[tables["val"]["prob_Mass"] > 0.3, "target_Mass"] = np.float32(1)

    def list_concerns(assessment: Assessment) -> list[str]:
        concerns = summarise(assessment, assessment.tables()).concerns
        return [text for text in concerns if "Calibration makes the calibration error" in text]

    assessment = make_assessment(("Effusion", "Mass"), change=spoil)
    [concern] = list_concerns(assessment)
    after, before = (assessment.final.value(name, "Mass") for name in ("ece", "ece_raw"))
    assert f"worse, by more than chance: Mass {after:.3f} [" in concern
    assert f"] from {before:.3f} [" in concern
    print_assessment(assessment)
    assert "warning: Calibration makes the calibration error on test worse" in " ".join(capsys.readouterr().out.split())
    without = make_assessment(("Mass",), ("val", "test"), "calibration=none")
    for plain in (make_assessment(("Effusion", "Mass")), without):
        assert not list_concerns(plain)


def test_a_training_in_another_precision_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    def say(before: tuple[float, Precision] | None) -> list[str]:
        one = replace(assessment, subject=replace(assessment.subject, precision="fp32", in_training=before))
        capsys.readouterr()
        print_assessment(one)
        printed = " ".join(capsys.readouterr().out.split())
        said = [text for text in summarise(one, one.tables()).paragraphs if "the training measured" in text]
        assert ("the training measured" in printed) == bool(said)
        assert all(text in printed for text in said)
        return said

    assessment = make_assessment()
    value = assessment.parts["val"].value("auroc", "macro")
    assert say((value - 0.00123, "bf16")) == [
        f"Validation macro AUROC is {value:.4f} in fp32; the training measured {value - 0.00123:.4f} in bf16, a "
        "difference of +0.0012."
    ]
    for before in (None, (value - 0.00123, "fp32"), (value, "bf16"), (np.nan, "bf16")):
        assert say(before) == []


def test_hostile_names_are_text(tmp_path: Path) -> None:
    dropped = pd.DataFrame({"image": HOSTILE, "path": "x", "reason": [f"<u>{name}" for name in HOSTILE]})
    subject = EvaluatedModel(
        "<b>bold</b>", "<u>data", "<i>split", "<s>hash", {f"<b>{name}": name for name in HOSTILE}, {"<b>": HOSTILE}
    )
    page, files = report(make_assessment(HOSTILE, subject=subject, dropped=dropped), tmp_path)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    check_page(page, html)
    check_numbers(page, files)
    everything = "\n".join(page.texts)
    for name in HOSTILE:
        printable = name if name.isprintable() else ascii(name)[1:-1]
        assert printable in everything
        assert any(printable in image["alt"] for image in page.find("img") if image["alt"].startswith("ROC"))
    assert "\u202e" not in html
    assert "\x1b" not in html
    files_drawn = {path.name for path in (tmp_path / "figures").iterdir()}
    assert all(re.fullmatch(r"[a-z0-9-]+\.png", name) for name in files_drawn)
    assert len(files_drawn) == 2 + len(PICTURES) * len(HOSTILE)


def make_extra(folder: Path) -> Section:
    """A section as another module would make it, without a care for how pictures look here."""
    figure = Figure()
    axes = figure.subplots()
    axes.plot([0, 1])
    axes.set_title("a plain figure")
    PillowImage.new("L", (32, 32), 128).save(folder / "heat.png")
    frame = pd.DataFrame(
        {
            "label": ["Mass", "Effusion"],
            "group": ["F", "M"],
            "auroc": np.array([0.1, np.nan], np.float32),
            "auroc_low": np.array([0.05, np.nan], np.float32),
            "auroc_high": np.array([0.2, np.nan], np.float32),
            "flagged": [True, False],
            "n": pd.array([1234, None], dtype="Int64"),
            "reason": ["", "no <b>positive</b>"],
        }
    )
    interval = Column("auroc", None, "auroc_low", "auroc_high")
    columns = [Column("label"), Column("group"), interval, Column("flagged"), Column("n")]
    below = Section(
        "Below", "below", images=[Image((folder / "heat.png").read_bytes(), "A heatmap over a radiograph", ["<b>Heat"])]
    )
    return Section(
        "Something more",
        "more",
        concerns=["Mind <this>"],
        tables=[Table("Groups", frame, columns, n_heads=2)],
        pictures=[Picture(figure, "more", "A line that rises from 0 to 1", "A caption")],
        sections=[below],
    )


def test_other_sections_come_before_the_data(tmp_path: Path) -> None:
    page, files = report(make_assessment(("Mass",)), tmp_path, make_extra(tmp_path))
    check_page(page, (tmp_path / "report.html").read_text(encoding="utf-8"))
    check_numbers(page, files)
    anchors = [attributes["id"] for attributes in page.find("section")]
    assert anchors.index("decisions") < anchors.index("more") < anchors.index("below") < anchors.index("data")
    head, mass, effusion = page.tables["Groups"]
    assert head == ["label", "group", "auroc", "flagged", "n", "why blank"]
    assert [text.strip() for text in mass] == ["Mass", "F", "0.100 [0.050, 0.200]", "yes", "1,234", ""]
    assert page.numbers["Groups"][1][2] == [("0.1", "0.100"), ("0.05", "0.050"), ("0.2", "0.200")]  # float32's own
    assert [text.strip() for text in effusion] == ["Effusion", "M", "–", "no", "–", "no <b>positive</b>"]
    assert (tmp_path / "figures" / "more.png").is_file()
    assert any(image["alt"].startswith("A line") for image in page.find("img"))
    assert {image["src"][:22] for image in page.find("img") if "heatmap" in image["alt"]} == {"data:image/png;base64,"}


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"anchor": "roc"}, "the anchor 'roc'"),
        ({"pictures": [Picture(Figure(), "auroc", "")]}, "the picture 'auroc'"),
        ({"tables": [Table("Each label", pd.DataFrame({"n": [1]}), [Column("n")])]}, "the table 'Each label'"),
        ({"anchor": "Not this"}, "'Not this' cannot be the name of a"),
        ({"pictures": [Picture(Figure(), "../up", "")]}, "'../up' cannot be the name of a picture"),
        ({"tables": [Table("T", pd.DataFrame({"n": [1]}), [Column("n", low="n_low")])]}, "has no column n_low"),
    ],
)
def test_a_section_that_cannot_be_shown(
    plain: tuple[Assessment, Path], fault: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        write_report(plain[0], tmp_path, [replace(Section("Something more", "more"), **fault)])
    assert not (tmp_path / "report.html").exists()


@pytest.mark.slow
@pytest.mark.skipif(not (CHROMIUM and shutil.which("pdftotext")), reason="there is no Chromium or pdftotext")
def test_what_is_folded_is_printed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    folded = Table(
        "Groups", pd.DataFrame({"label": ["Mass"], "n": [271828]}), [Column("label"), Column("n")], folded=True
    )
    report(make_assessment(("Mass",)), out, Section("Something more", "more", tables=[folded]))
    run_chromium(out / "report.html", tmp_path, 1280, f"--print-to-pdf={tmp_path / 'page.pdf'}")
    text = subprocess.run(["pdftotext", tmp_path / "page.pdf", "-"], capture_output=True, text=True, check=True).stdout
    assert "271,828" in text
    assert "seed: 7" in text


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium to open the page with")
def test_no_summary_table_is_wider_than_a_screen(tmp_path: Path) -> None:
    report(make_assessment(tuple("ABCDEFGH")), tmp_path)
    assert {"Over all labels", "Each label"}.isdisjoint(find_wide_tables(tmp_path / "report.html", tmp_path, 1280))


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium to open the page with")
@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_opens_the_page(tmp_path: Path, width: int) -> None:
    """No complaint about what the page may not load; nothing scrolls sideways, however long the names."""
    out = tmp_path / "out"
    report(
        make_assessment(HOSTILE, subject=EvaluatedModel("x" * 200, "y" * 200, "official", "4f1c2d9a8b7e")),
        out,
        make_extra(tmp_path),
    )
    errors, pixels = browse(out / "report.html", tmp_path, width)
    assert errors == []
    assert pixels.shape[:2] == (2000, width)
    assert (pixels != pixels[0, 0]).any(axis=(1, 2)).mean() > 0.5
    assert measure_width(out / "report.html", tmp_path, width) == 0


def test_the_shared_report_has_all_but_the_images_of_patients(tmp_path: Path) -> None:
    picture = tmp_path / "patient.png"
    PillowImage.new("L", (8, 8), 77).save(picture)
    below = Section(
        "Heatmaps of Mass", "heatmaps-mass", images=[Image(picture.read_bytes(), "a patient", ["the most certain"])]
    )
    write_report(
        make_assessment(),
        tmp_path,
        [Section("Heatmaps", "heatmaps", sections=[below])],
        shared=tmp_path / "shared.html",
    )
    whole, shared = ((tmp_path / name).read_text() for name in ("report.html", "shared.html"))
    assert "data:image/png" in whole
    assert "data:image/png" not in shared
    assert re.findall("<h[23]>.*?</h[23]>", shared) == re.findall("<h[23]>.*?</h[23]>", whole)
    assert shared.count("<svg") + shared.count("data:image/svg") == whole.count("<svg") + whole.count("data:image/svg")
