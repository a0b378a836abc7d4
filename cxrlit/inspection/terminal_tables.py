"""What ``cxrlit inspect`` prints."""

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
import pandas as pd
from rich.table import Table
from rich.text import Text

from cxrlit.core.console import print_table, say
from cxrlit.core.errors import format_count
from cxrlit.data.tables.text_table import clip
from cxrlit.html.text import count_reasons, escape_unprintable, format_number, format_share
from cxrlit.inspection.counts import IndexCounts, compare_prevalence
from cxrlit.inspection.number_lists import (
    format_change,
    list_file_facts,
    list_file_sizes,
    list_findings,
    list_patients,
    list_people,
    list_pixels,
)
from cxrlit.inspection.sample import Sample
from cxrlit.inspection.survey import Survey

MAX_LABELS = 14
"""Labels of which the screen shows which occur together; the page shows it of any number."""

MAX_REASONS = 10


def print_survey(survey: Survey) -> None:
    """What the tables say."""
    data, parts, labels = survey.data, survey.counts, survey.data.labels
    names = [part.name for part in parts]
    say(f"{data.name}: {format_count(len(survey.rows), 'image')} of {format_count(parts[0].n_patients, 'patient')}")
    say(escape_unprintable(survey.describe_split()))
    print_rows(["", *names], [list_patients(parts), list_findings(parts), list_people(parts)])

    unknown = any(part.unknown.any() for part in parts)
    say(f"Positives / negatives{' / unknown' if unknown else ''} of each label:")
    print_rows(["", *names], [[(label, _count_targets(parts, row, unknown)) for row, label in enumerate(labels)]])
    further = len(parts) > 1
    say(f"Prevalence of each label{', and how far it is from that of the whole' if further else ''}:")
    print_rows(["", *names], [[(label, _say_prevalence(parts, row)) for row, label in enumerate(labels)]])
    if len(labels) <= MAX_LABELS:
        say("Images with both labels:")
        rows = [
            (f"{row + 1} {label}", [format_number(int(number)) for number in parts[0].together[row]])
            for row, label in enumerate(labels)
        ]
        print_rows(["", *(str(row + 1) for row in range(len(labels)))], [rows])
    low, middle, high, total = (size for _, size in list_file_sizes(survey.rows["n_bytes"]))
    say(f"Image files: {low} to {high}, median {middle}, {total} together")
    _print_reasons("dropped", data.name_rows(data.dropped))
    _print_reasons("left out", data.name_rows(data.excluded))


def print_sample(sample: Sample) -> None:
    """What the images say."""
    print_rows(
        ["sample", ""], [[(name, [text]) for name, text in (*list_file_facts(sample), *list_pixels(sample))]], "left"
    )
    corrupt = [(facts.image, facts.reason) for facts in sample.corrupt]
    _print_reasons("corrupt", pd.DataFrame(corrupt, columns=["image", "reason"]))


def print_concerns(concerns: Iterable[str]) -> None:
    """What a user should look into, in yellow."""
    for concern in concerns:
        say(escape_unprintable(f"warning: {concern}"), style="yellow")


def print_rows(
    heads: Sequence[str],
    sections: Sequence[Sequence[tuple[str, Sequence[str]]]],
    justify: Literal["left", "right"] = "right",
) -> None:
    """Print a table of rows with names; what stands in them is no markup."""
    table = Table()
    for number, head in enumerate(heads):
        table.add_column(Text(head), justify="left" if number == 0 or justify == "left" else "right", overflow="fold")
    for section in sections:
        for name, cells in section:
            table.add_row(Text(name), *(Text(cell) for cell in cells))
        table.add_section()
    print_table(table)


def _count_targets(parts: Sequence[IndexCounts], label: int, unknown: bool) -> list[str]:
    cells = []
    for part in parts:
        numbers = [part.positives[label], part.negatives[label], part.unknown[label]]
        cells.append(" / ".join(format_number(int(number)) for number in numbers[: 3 if unknown else 2]))
    return cells


def _say_prevalence(parts: Sequence[IndexCounts], label: int) -> list[str]:
    whole, *others = parts
    cells = [format_share(whole.prevalence[label])]
    for part in others:
        share, change = part.prevalence[label], compare_prevalence(part, whole)[label]
        cells.append(format_share(share) if np.isnan(change) else f"{format_share(share)} {format_change(change)}")
    return cells


def _print_reasons(what: str, table: pd.DataFrame) -> None:
    if table.empty:
        return
    say(f"{format_count(len(table), 'image is', 'images are')} {what}:")
    reasons = count_reasons(table)
    for reason, number, images in reasons[:MAX_REASONS]:
        names = ", ".join(clip(image) for image in images)
        say(f"  {format_number(number)}: {clip(reason)} (such as {names})")
    if len(reasons) > MAX_REASONS:
        say(f"  {format_number(sum(number for _, number, _ in reasons[MAX_REASONS:]))}: other reasons")
