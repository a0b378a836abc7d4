"""Summary tables for both screen and page: one row per fact, usually one column per part of the split."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from cxrlit.data.image_io.gray_levels import MIN_STD
from cxrlit.html.tables import Table, make_figures, make_pairs
from cxrlit.html.text import (
    NOTHING,
    format_bytes,
    format_change,
    format_number,
    format_part,
    format_share,
    format_spread,
)
from cxrlit.inspection.counts import UNKNOWN, IndexCounts, compare_prevalence
from cxrlit.inspection.sample import Sample

PERCENTS = (1, 5, 25, 50, 75, 95, 99)

N_TOP = 6
"""Maximum number of sizes or modes listed."""


def tabulate_patients(parts: Sequence[IndexCounts]) -> Table:
    """Images, patients, and images per patient."""
    return _tabulate(
        "Images and patients of each part of the split",
        parts,
        [
            ("images", _share_out([part.n_images for part in parts])),
            ("patients", _share_out([part.n_patients for part in parts])),
            ("images per patient", [format_spread(part.per_patient) for part in parts]),
            ("images per patient, mean", [f"{part.per_patient.mean():.2f}" for part in parts]),
            (
                "patients with 1 image",
                [format_part(int((part.per_patient == 1).sum()), part.n_patients) for part in parts],
            ),
        ],
    )


def tabulate_findings(parts: Sequence[IndexCounts]) -> Table:
    """Number of labels per image."""
    rows = [
        ("none of these labels", [format_part(part.n_clear, part.n_images) for part in parts]),
        ("labels per image, mean", [f"{part.cardinality:.2f}" for part in parts]),
        ("labels per image, most", [str(len(part.n_findings) - 1) for part in parts]),
    ]
    if parts[0].n_open:
        rows.insert(1, ("none present, some unknown", [format_part(part.n_open, part.n_images) for part in parts]))
    return _tabulate("Labels of an image", parts, rows)


def tabulate_people(parts: Sequence[IndexCounts]) -> Table:
    """Views, sex and age."""
    rows = []
    for word, name in (("view", "views"), ("sex", "sexes")):
        for value in getattr(parts[0], name):
            cells = [format_part(getattr(part, name).get(value, 0), part.n_images) for part in parts]
            rows.append((f"{word} {value}", cells))
    rows.append(("age", [format_spread(part.ages) for part in parts]))
    unknown = [part.n_images - len(part.ages) for part in parts]
    if unknown[0]:
        rows.append((f"age {UNKNOWN}", [format_part(n, part.n_images) for n, part in zip(unknown, parts, strict=True)]))
    return _tabulate("Images by view, sex and age in years", parts, rows)


def tabulate_targets(parts: Sequence[IndexCounts], labels: Sequence[str]) -> Table:
    """Positives, negatives and, where there are any, unknown targets of each label."""
    names = ["positives", "negatives", *(["unknown"] if parts[0].unknown.any() else [])]
    counts = [np.stack([getattr(part, name) for name in names]) for part in parts]
    rows = [
        (label, [" / ".join(map(format_number, of[:, row].tolist())) for of in counts])
        for row, label in enumerate(labels)
    ]
    return _tabulate(f"{' / '.join(names).capitalize()} of each label", parts, rows)


def tabulate_prevalence(parts: Sequence[IndexCounts], labels: Sequence[str]) -> Table:
    """Prevalence of each label, and how far each part differs from the whole data set."""
    whole, *others = parts
    rows = [(label, [format_share(whole.prevalence[row])]) for row, label in enumerate(labels)]
    for part in others:
        for (_, cells), share, change in zip(rows, part.prevalence, compare_prevalence(part, whole), strict=True):
            cells.append(format_share(share) if np.isnan(change) else f"{format_share(share)} {format_change(change)}")
    beside = ", and how far it is from that of the whole" if others else ""
    return _tabulate(f"Prevalence of each label{beside}", parts, rows)


def tabulate_file_sizes(n_bytes: pd.Series) -> Table:
    """File sizes: minimum, median, maximum, total."""
    values = {"minimum": n_bytes.min(), "median": n_bytes.median(), "maximum": n_bytes.max(), "total": n_bytes.sum()}
    return make_pairs("Size of the image files", [(name, format_bytes(float(n))) for name, n in values.items()])


def tabulate_file_facts(sample: Sample) -> Table:
    """Formats and sizes of the sample's files."""
    decoded = sample.decoded
    sizes = Counter(f"{facts.width:,} x {facts.height:,}" for facts in decoded)
    return make_pairs(
        "The sample: images that were read whole",
        [
            ("images read", format_number(len(sample.facts))),
            ("cannot be decoded", format_part(len(sample.corrupt), len(sample.facts))),
            ("sizes, pixels", _list_top(sizes, len(decoded))),
            ("modes", _list_top(Counter(facts.mode for facts in decoded), len(decoded))),
            ("width / height", format_spread([facts.width / facts.height for facts in decoded], 2)),
            ("the same file under several names", _say_duplicates(sample)),
        ],
    )


def tabulate_pixels(sample: Sample) -> Table:
    """Distribution of the sample's pixels, from 0 (black) to 1 (white); no rows if no image was decoded."""
    decoded = sample.decoded
    rows = [
        ("mean of the pixels", f"{sample.mean:.3f}"),
        ("standard deviation of the pixels", f"{sample.std:.3f}"),
        *((f"percentile {n}", f"{value:.3f}") for n, value in zip(PERCENTS, sample.percentiles(PERCENTS), strict=True)),
        ("mean of an image", format_spread([facts.mean for facts in decoded], 3)),
        ("standard deviation of an image", format_spread([facts.std for facts in decoded], 3)),
        (f"of one gray, or almost (deviation < {MIN_STD:g})", format_part(len(sample.flat), len(decoded))),
    ]
    return make_pairs("Pixels of the sample, from 0 (black) to 1 (white), before any padding", rows if decoded else [])


def _tabulate(caption: str, parts: Sequence[IndexCounts], rows: Sequence[tuple[str, Sequence[str]]]) -> Table:
    return make_figures(caption, ["", *(part.name for part in parts)], rows)


def _share_out(numbers: Sequence[int]) -> list[str]:
    """The total, and each part with its percentage."""
    return [format_number(numbers[0]), *(format_part(number, numbers[0]) for number in numbers[1:])]


def _say_duplicates(sample: Sample) -> str:
    groups = sample.duplicates
    if not groups:
        return "none in the sample"
    across = sum(len(group.patients) > 1 for group in groups)
    between = sum(len(group.parts) > 1 for group in groups)
    return f"{len(groups):,}; {across:,} of them across patients, {between:,} across parts of the split"


def _list_top(counts: Mapping[str, int], total: int) -> str:
    items = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{name}: {format_part(number, total)}" for name, number in items[:N_TOP]]
    others = sum(number for _, number in items[N_TOP:])
    if others:
        shown.append(f"{len(items) - N_TOP:,} others: {format_part(others, total)}")
    return "; ".join(shown) or NOTHING
