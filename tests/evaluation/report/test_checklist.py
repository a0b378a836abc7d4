"""claim.md: every item of both guidelines once, the facts of the evaluation, and no name that is markup."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from assessed import SUBJECT, make_assessment, read_settings

from cxrlit.evaluation.measure.assessment import Assessment, EvaluatedModel, write_assessment
from cxrlit.evaluation.report.checklist import write_checklist

TRIPOD = (
    "1 2 3a 3b 3c 4 5a 5b 6a 6b 6c 7 8a 8b 8c 9a 9b 9c 10 11 12a 12b 12c 12d 12e 12f 12g 13 14 15 16 17 18a 18b 18c "
    "18d 18e 18f 19 20a 20b 20c 21 22 23a 23b 24 25 26 27a 27b 27c"
)
AUTHOR = "**Author to fill.**"
CONFIG = {
    "seed": 7,
    "loss": {"_target_": "torch.nn.BCEWithLogitsLoss"},
    "augment": {"transforms": {"flip": {}, "<u>[x](http://a)": {}}},
    "monitor": "val/auroc_macro",
    "phases": {"finetune": {"img_size": 224, "batch_size": 32, "lr": 1e-4, "max_epochs": 10}, "highres": {}},
}
HOSTILE = "<script>|`x` [a](http://b) ![c](d) *e* _f_ \x1b[31m\n# g"


def write(assessment: Assessment, out: Path) -> dict[str, dict[str, str]]:
    """The answers of each guideline, by item; checks the form of every row."""
    write_assessment(assessment, out)
    write_checklist(assessment, out, read_settings(), None)
    text = (out / "claim.md").read_text(encoding="utf-8")
    assert "\n\n\n" not in text
    answers = {}
    for title, body in re.findall(r"\n## (.*?)\n(.*?)(?=\n## |\Z)", text, re.DOTALL):
        rows = [line for line in body.splitlines() if line][2:]
        assert all(re.fullmatch(r"\| \w+ \| [^|]+ \| [^|]+ \|", row) for row in rows), rows
        answers[title] = {row.split(" | ")[0][2:]: row.split(" | ")[2][:-2] for row in rows}
    return answers


def test_each_item_is_there_and_facts_are_filled_in(tmp_path: Path) -> None:
    def forget(tables: dict[str, pd.DataFrame]) -> None:
        tables["test"].loc[:11, "target_Mass"] = np.float32(np.nan)

    assessment = make_assessment(change=forget, subject=replace(SUBJECT, config=CONFIG))
    answers = write(assessment, tmp_path)
    claim, tripod = answers["CLAIM 2024"], answers["TRIPOD+AI"]
    assert list(claim) == [str(number) for number in range(1, 45)]
    assert list(tripod) == TRIPOD.split()
    assert "split official 4f1c2d9a8b7e" in claim["7"]
    assert "validation, of 150 images: none; test, of 150 images: Mass 12." in claim["12"]
    assert "no patient is in two parts" in claim["20"]
    assert f"test: macro AUROC {assessment.final.value('auroc'):.3f} &#91;" in claim["37"]
    assert "100 resamples of patients" in claim["29"]
    assert "BCEWithLogitsLoss" in claim["25"]
    assert "seed 7. finetune: 224 px, batch size 32, learning rate 0.0001, at most 10 epochs. All" in claim["25"]
    assert "highres" not in claim["25"]
    assert "best F1 over the percentiles" in tripod["15"]
    assert "Platt scaling" in tripod["12f"]
    assert "torch " in claim["23"]
    assert {claim[item] for item in ("1", "14", "44")} == {AUTHOR}
    assert AUTHOR in claim["33"]


def test_what_is_not_known_is_the_authors(tmp_path: Path) -> None:
    theirs = EvaluatedModel("theirs.csv", "theirs.csv", "", "")
    answers = write(make_assessment(("Mass",), ("test",), subject=theirs), tmp_path)
    for item in ("24", "26"):
        assert answers["CLAIM 2024"][item] == AUTHOR
    assert answers["TRIPOD+AI"]["22"] == AUTHOR
    assert "state which patients the model was trained on" in answers["CLAIM 2024"]["20"]
    assert "Probabilities were not calibrated." in answers["TRIPOD+AI"]["12f"]


def test_external_data_are_said_to_be_external(tmp_path: Path) -> None:
    answers = write(make_assessment(("Mass",), ("val", "external")), tmp_path)
    assert answers["CLAIM 2024"]["33"].startswith("This evaluation is external: nih.")


def test_hostile_names_are_text(tmp_path: Path) -> None:
    subject = EvaluatedModel(
        HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE, None, None, {HOSTILE: HOSTILE}, CONFIG, (HOSTILE,)
    )
    write(make_assessment((HOSTILE, "Mass"), subject=subject), tmp_path)
    text = (tmp_path / "claim.md").read_text(encoding="utf-8")
    assert "&lt;script&gt;&#124;&#96;x&#96; &#91;a&#93;(http&#58;//b)" in text
    for markup in ("<script", "](", "<u>", "*e*", " _f_", "http://", "\x1b", "\n# g"):
        assert markup not in text, markup
