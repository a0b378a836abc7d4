"""Terminal output of ``cxrlit inspect``."""

from collections.abc import Iterable
from typing import Literal

import pandas as pd
from rich.table import Table as RichTable

from cxrlit.core.console import print_table, say
from cxrlit.core.errors import format_count
from cxrlit.data.tables.text_table import clip
from cxrlit.html.tables import Table, make_figures
from cxrlit.html.text import count_reasons, escape_unprintable, format_number
from cxrlit.inspection.sample import Sample
from cxrlit.inspection.summary_tables import (
    tabulate_file_facts,
    tabulate_file_sizes,
    tabulate_findings,
    tabulate_patients,
    tabulate_people,
    tabulate_pixels,
    tabulate_prevalence,
    tabulate_targets,
)
from cxrlit.inspection.survey import Survey

MAX_LABELS = 14
"""Maximum number of labels for which the screen shows co-occurrence; the page has no limit."""

MAX_REASONS = 10


def print_survey(survey: Survey) -> None:
    """Print the survey of the tables."""
    data, parts, labels = survey.data, survey.counts, survey.data.labels
    say(f"{data.name}: {format_count(len(survey.rows), 'image')} of {format_count(parts[0].n_patients, 'patient')}")
    say(escape_unprintable(survey.describe_split()))
    print_tables(tabulate_patients(parts), tabulate_findings(parts), tabulate_people(parts))
    for table in (tabulate_targets(parts, labels), tabulate_prevalence(parts, labels)):
        say(f"{table.caption}:")
        print_tables(table)
    if len(labels) <= MAX_LABELS:
        say("Images with both labels:")
        numbers = range(1, len(labels) + 1)
        counts = zip(numbers, labels, parts[0].together.tolist(), strict=True)
        rows = [(f"{number} {label}", list(map(format_number, row))) for number, label, row in counts]
        print_tables(make_figures("", ["", *map(str, numbers)], rows))
    low, middle, high, total = tabulate_file_sizes(survey.rows["n_bytes"]).frame["1"]
    say(f"Image files: {low} to {high}, median {middle}, {total} together")
    _print_reasons("dropped", data.name_rows(data.dropped))
    _print_reasons("left out", data.name_rows(data.excluded))


def print_sample(sample: Sample) -> None:
    """Print the sample of the images."""
    facts = pd.concat([tabulate_file_facts(sample).frame, tabulate_pixels(sample).frame])
    print_tables(make_figures("", ["sample", ""], [(name, [text]) for name, text in facts.to_numpy()]), justify="left")
    corrupt = [(facts.image, facts.reason) for facts in sample.corrupt]
    _print_reasons("corrupt", pd.DataFrame(corrupt, columns=["image", "reason"]))


def print_concerns(concerns: Iterable[str]) -> None:
    """Print concerns in yellow."""
    for concern in concerns:
        say(escape_unprintable(f"warning: {concern}"), style="yellow")


def print_tables(*tables: Table, justify: Literal["left", "right"] = "right") -> None:
    """Print tables of formatted text, aligned under the heads of the first."""
    printed = RichTable()
    for number, (head, _) in enumerate(tables[0].grid.heads):
        printed.add_column(head, justify=justify if number else "left", overflow="fold")
    for table in tables:
        for row in table.frame.to_numpy():
            printed.add_row(*row)
        printed.add_section()
    print_table(printed)


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
