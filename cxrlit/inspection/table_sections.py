"""Sections of the page about the tables of a data set."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrlit.html.section import Section
from cxrlit.html.tables import Column, Table, make_figures
from cxrlit.html.text import format_number, format_share
from cxrlit.inspection.charts import (
    AGE_STARTS,
    PATIENT_STARTS,
    chart_counts,
    count_bins,
    count_n_findings,
    draw_prevalence,
)
from cxrlit.inspection.counts import IndexCounts
from cxrlit.inspection.summary_tables import (
    tabulate_findings,
    tabulate_patients,
    tabulate_people,
    tabulate_prevalence,
    tabulate_targets,
)
from cxrlit.inspection.survey import Survey


def build_table_sections(survey: Survey, concerns: Sequence[str]) -> Iterator[Section]:
    """Sections on split, labels, patients and people.

    Args:
        survey: The survey of the tables.
        concerns: Warnings that the user should check before training.
    """
    parts, labels = survey.counts, survey.data.labels
    names = [part.name for part in parts]
    tables = [tabulate_patients(parts)]
    sources = survey.data.index.groupby("source", sort=False)["patient"]
    if sources.ngroups > 1:
        rows = [(str(name), [format_number(len(of)), format_number(of.nunique())]) for name, of in sources]
        tables.append(make_figures("Data sets", ["data set", "images", "patients"], rows))
    yield Section("Summary and split", "summary", concerns=concerns, tables=tables)

    caption = "Images by the number of labels that are present"
    table, picture = chart_counts("n-findings", caption, "labels", names, *count_n_findings(parts))
    with_one = [
        (label, [format_number(n) for n in of])
        for label, *of in zip(labels, *(part.patients_with.tolist() for part in parts), strict=True)
    ]
    yield Section(
        "Labels",
        "labels",
        tables=[
            tabulate_targets(parts, labels),
            tabulate_prevalence(parts, labels),
            make_figures("Patients with a positive image of each label", ["", *names], with_one),
            tabulate_findings(parts),
            table,
        ],
        pictures=[draw_prevalence(parts, labels), picture],
        notes=[
            f"{'' if parts[0].unknown.any() else 'No label of an image is unknown. '}Behind the prevalence of a part "
            "is its relative difference from that of all images. – is undefined."
        ],
    )

    yield Section(
        "Labels together",
        "together",
        paragraphs=[
            "Images with the label of the row and that of the column, and in brackets the share of the column's among "
            "the images with the row's (of which it is known)."
        ],
        tables=[tabulate_together(part, labels) for part in parts],
    )

    bins = count_bins([part.per_patient for part in parts], PATIENT_STARTS)
    table, picture = chart_counts(
        "images-per-patient", "Patients by the number of their images", "images", names, *bins
    )
    yield Section("Patients", "patients", tables=[table], pictures=[picture])

    bins = count_bins([part.ages for part in parts], AGE_STARTS)
    ages = [chart_counts("ages", "Images by age of the patient", "years", names, *bins)] if bins[0] else []
    yield Section(
        "View, sex, age",
        "people",
        tables=[tabulate_people(parts), *(table for table, _ in ages)],
        pictures=[picture for _, picture in ages],
    )


def tabulate_together(part: IndexCounts, labels: Sequence[str]) -> Table:
    """Images with both labels, and their fraction of those with the row's label, which shades the cell."""
    values: dict[str, Sequence[str] | NDArray[np.float64]] = {"label": labels}
    columns = [Column("label", "")]
    for column, label in enumerate(labels):
        shares = part.conditional[:, column]
        counts = zip(part.together[:, column].tolist(), shares, strict=True)
        values[f"{label} text"] = [f"{format_number(number)} ({format_share(share)})" for number, share in counts]
        values[f"{label} share"] = shares
        columns.append(Column(f"{label} text", label, is_figure=True, shade=f"{label} share"))
    return Table(f"Labels together, {part.name}", pd.DataFrame(values), columns)
