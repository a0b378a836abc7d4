"""Numbers as a reader takes them in, and the lists of them that the screen and the page share."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from cxrlit.html.text import NOTHING, format_number, format_share
from cxrlit.inspection.counts import UNKNOWN, IndexCounts, Numbers
from cxrlit.inspection.sample import MIN_STD, Sample

PERCENTS = (1, 5, 25, 50, 75, 95, 99)

Row = tuple[str, list[str]]
"""What a row of figures is called, and its cells."""


def format_change(change: float) -> str:
    """A relative difference as percent with its sign; a dash where it is undefined.

    >>> format_change(-0.0312)
    '-3.1 %'
    """
    return NOTHING if np.isnan(change) else f"{100 * change:+.1f} %"


def format_part(number: int, total: int) -> str:
    """A number and its share of the total.

    >>> format_part(1500, 3000)
    '1,500 (50.0 %)'
    """
    return f"{number:,} ({format_share(number / total if total else float('nan'))})"


def format_bytes(number: float) -> str:
    """A size in bytes, with the unit that leaves it below 1,000.

    >>> format_bytes(411234), format_bytes(45.2e9)
    ('411 kB', '45.2 GB')
    """
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 999.5:
            return f"{number:.0f} {unit}" if unit in {"bytes", "kB"} else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:,.1f} TB"


def format_spread(values: Sequence[float] | Numbers, digits: int = 0) -> str:
    """From where to where values go, and their median; a dash where there are none.

    >>> format_spread([1, 2, 9])
    '1 to 9, median 2'
    """
    if not len(values):
        return NOTHING
    low, middle, high = (f"{value:,.{digits}f}" for value in (np.min(values), np.median(values), np.max(values)))
    return f"{low} to {high}, median {middle}"


def list_patients(parts: Sequence[IndexCounts]) -> list[Row]:
    """Images, patients, and how many images a patient has; a cell a part."""
    return [
        ("images", _share_out([part.n_images for part in parts])),
        ("patients", _share_out([part.n_patients for part in parts])),
        ("images per patient", [format_spread(part.per_patient) for part in parts]),
        ("images per patient, mean", [f"{part.per_patient.mean():.2f}" for part in parts]),
        ("patients with 1 image", [format_part(int((part.per_patient == 1).sum()), part.n_patients) for part in parts]),
    ]


def list_findings(parts: Sequence[IndexCounts]) -> list[Row]:
    """How many labels an image has; a cell a part."""
    rows = [
        ("none of these labels", [format_part(part.n_clear, part.n_images) for part in parts]),
        ("labels per image, mean", [f"{part.cardinality:.2f}" for part in parts]),
        ("labels per image, most", [str(len(part.n_findings) - 1) for part in parts]),
    ]
    if parts[0].n_open:
        rows.insert(1, ("none present, some unknown", [format_part(part.n_open, part.n_images) for part in parts]))
    return rows


def list_people(parts: Sequence[IndexCounts]) -> list[Row]:
    """Views, sex and age; a cell a part."""
    rows = []
    for name in ("views", "sexes"):
        word = "view" if name == "views" else "sex"
        for value in getattr(parts[0], name):
            cells = [format_part(getattr(part, name).get(value, 0), part.n_images) for part in parts]
            rows.append((f"{word} {value}", cells))
    rows.append(("age", [format_spread(part.ages) for part in parts]))
    unknown = [part.n_images - len(part.ages) for part in parts]
    if unknown[0]:
        rows.append((f"age {UNKNOWN}", [format_part(n, part.n_images) for n, part in zip(unknown, parts, strict=True)]))
    return rows


def list_file_sizes(n_bytes: pd.Series) -> list[tuple[str, str]]:
    """How large the files are: minimum, median, maximum, total."""
    values = {"minimum": n_bytes.min(), "median": n_bytes.median(), "maximum": n_bytes.max(), "total": n_bytes.sum()}
    return [(name, format_bytes(float(value))) for name, value in values.items()]


def list_file_facts(sample: Sample) -> list[tuple[str, str]]:
    """What kind of files the sample has."""
    decoded = sample.decoded
    ratios = [facts.width / facts.height for facts in decoded]
    sizes = Counter(f"{facts.width:,} x {facts.height:,}" for facts in decoded)
    return [
        ("images read", format_number(len(sample.facts))),
        ("cannot be decoded", format_part(len(sample.corrupt), len(sample.facts))),
        ("sizes, pixels", _list_top(sizes, len(decoded))),
        ("modes", _list_top(Counter(facts.mode for facts in decoded), len(decoded))),
        ("width / height", format_spread(ratios, 2)),
        ("the same file under several names", _say_duplicates(sample)),
    ]


def list_pixels(sample: Sample) -> list[tuple[str, str]]:
    """How the pixels of the sample are spread, from 0, black, to 1, white."""
    decoded = sample.decoded
    if not decoded:
        return []
    means, stds = ([getattr(facts, name) for facts in decoded] for name in ("mean", "std"))
    return [
        ("mean of the pixels", f"{sample.mean:.3f}"),
        ("standard deviation of the pixels", f"{sample.std:.3f}"),
        *((f"percentile {percent}", f"{value:.3f}") for percent, value in _zip_percentiles(sample)),
        ("mean of an image", format_spread(means, 3)),
        ("standard deviation of an image", format_spread(stds, 3)),
        (f"of one gray, or almost (deviation < {MIN_STD:g})", format_part(len(sample.flat), len(decoded))),
    ]


def _share_out(numbers: Sequence[int]) -> list[str]:
    """The whole as it is, the parts with their shares of it."""
    return [format_number(numbers[0]), *(format_part(number, numbers[0]) for number in numbers[1:])]


def _zip_percentiles(sample: Sample) -> Iterable[tuple[int, float]]:
    return zip(PERCENTS, sample.percentiles(PERCENTS), strict=True)


def _say_duplicates(sample: Sample) -> str:
    groups = sample.duplicates
    if not groups:
        return "none in the sample"
    across = sum(len(group.patients) > 1 for group in groups)
    between = sum(len(group.parts) > 1 for group in groups)
    return f"{len(groups):,}; {across:,} of them across patients, {between:,} across parts of the split"


def _list_top(counts: Mapping[str, int], total: int, limit: int = 6) -> str:
    items = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{name}: {format_part(number, total)}" for name, number in items[:limit]]
    others = sum(number for _, number in items[limit:])
    if others:
        shown.append(f"{len(items) - limit:,} others: {format_part(others, total)}")
    return "; ".join(shown) or NOTHING
