"""Report section: scores of heatmaps against boxes, and heatmaps of the most certain right and wrong images."""

from collections.abc import Sequence

import pandas as pd

from cxrlit.config import TTA
from cxrlit.evaluation.localisation.localise import Localisation
from cxrlit.evaluation.report.wording import MACRO
from cxrlit.html.section import Image, Section
from cxrlit.html.tables import Column, Table
from cxrlit.html.text import name_files

NAMES = {"pointing": "pointing game", "iou": "IoU", "iobb": "IoBB"}
METHODS = {"gradcam": "Grad-CAM", "gradcam++": "Grad-CAM++"}


def build_localisation_section(
    found: Localisation, labels: Sequence[str], method: str, part: str, n_networks: int = 1, tta: TTA = "none"
) -> Section:
    """Show the scores against boxes, if there are any, and a sheet of examples for each label.

    Args:
        found: Table and pictures.
        labels: The labels.
        method: ``gradcam`` or ``gradcam++``.
        part: Part of the images.
        n_networks: Number of networks whose maps are averaged.
        tta: Test-time augmentation of the predictions; heatmaps are made without.
    """
    table = found.table
    reasons = table.loc[table["label"] == MACRO, "reason"].unique()
    is_scored = bool(table["value"].notna().any())
    sheets = {sheet.label: sheet for sheet in found.sheets}
    anchors = dict(zip(labels, name_files(labels), strict=True))
    pointing = table[(table["label"] == MACRO) & (table["metric"] == "pointing")]
    score = (
        f"The maximum of the map lies in a box in {pointing['value'].iloc[0]:.3f} of the cases (mean over labels); a "
        f"random map reaches {pointing['random'].iloc[0]:.3f}, one that always points to the centre "
        f"{pointing['centre'].iloc[0]:.3f}."
        if is_scored
        else f"They are not scored: {reasons[0]}."
    )
    of_several = f" Each is the mean of the maps of {n_networks} checkpoints." if n_networks > 1 else ""
    without = (
        " The probabilities are a mean over views of an image, the heatmap is of the image." if tta != "none" else ""
    )
    return Section(
        "Heatmaps",
        "heatmaps",
        paragraphs=[
            f"{METHODS[method]} at the last dense block shows which places raise the score of a label. It is coarse (a "
            "place is 32 pixels wide), and it shows what the model looks at, not where the finding is."
            f"{of_several}{without}",
            score,
        ],
        tables=[_tabulate(table)] if is_scored else [],
        sections=[
            Section(
                f"Heatmaps of {label}, {part}",
                f"heatmaps-{anchors[label]}",
                images=[Image(sheets[label].path.read_bytes(), sheets[label].caption, [sheets[label].caption])],
            )
            for label in labels
            if label in sheets
        ],
    )


def _tabulate(table: pd.DataFrame) -> Table:
    rows = table[table["metric"].isin(NAMES)].reset_index(drop=True)
    columns = [
        Column("label"), Column("metric"), Column("threshold", "T"), Column("value", low="low", high="high"),
        Column("random", "random map"), Column("centre", "centre map"), Column("elsewhere", "boxes of other patients"),
        Column("n_boxes", "boxes"), Column("n_images", "images"),
    ]  # fmt: skip
    return Table("Heatmaps against boxes", rows, columns, n_heads=3, folded=True)
