"""Sections of the page about the image files of a data set."""

from collections.abc import Sequence

import pandas as pd

from cxrlit.core.errors import name_some
from cxrlit.data.copies import Duplicates
from cxrlit.html.section import Image, Section
from cxrlit.html.tables import MAX_LISTED, Column, Table, make_reasons
from cxrlit.inspection.augment_sheet import N_EPOCHS, SHEET_PX, AugmentedImage
from cxrlit.inspection.charts import draw_levels
from cxrlit.inspection.counts import UNKNOWN
from cxrlit.inspection.image_check import THUMBNAIL_PX
from cxrlit.inspection.sample import Sample
from cxrlit.inspection.summary_tables import tabulate_file_facts, tabulate_file_sizes, tabulate_pixels
from cxrlit.inspection.survey import Survey

MAX_NAMES = 10
"""Maximum number of names listed for one file."""

AUGMENTED_PX = 160
"""Side of an augmented image on the page, pixels."""

NOTHING_READ = "No image could be read."


def build_files_section(survey: Survey, sample: Sample | None) -> Section:
    """File sizes, excluded images with reasons, and oddities of the sample."""
    data, paragraphs, notes = survey.data, [], []
    tables = [tabulate_file_sizes(survey.rows["n_bytes"])]
    for what, images in (("dropped", data.dropped), ("left out", data.excluded)):
        if len(images):
            tables.append(make_reasons(f"Images that are {what}", data.name_rows(images)))
        else:
            paragraphs.append(f"No image is {what}.")
    if data.stores:
        stores = ", ".join(data.stores)
        paragraphs.append(f"Images of {stores} are in a prepared store: there are no files of them to look at.")
    if sample is not None:
        tables.append(tabulate_file_facts(sample))
        if sample.corrupt:
            frame = pd.DataFrame({"image": [facts.image for facts in sample.corrupt]})
            frame["why"] = [facts.reason for facts in sample.corrupt]
            columns = [Column("image"), Column("why", "reason")]
            caption = "Images of the sample that cannot be decoded"
            tables.append(Table(caption, frame, columns, max_rows=MAX_LISTED))
        if sample.duplicates:
            tables.append(tabulate_duplicates(sample.duplicates))
        notes.append("Only files of the sample are compared with each other: n_sample says how many are read.")
    return Section("Files", "files", paragraphs, tables=tables, notes=notes)


def build_pixels_section(sample: Sample | None) -> Section:
    """Distribution of the sample's pixels, and images of a single gray."""
    if sample is None or not sample.decoded:
        return Section("Pixels", "pixels", [NOTHING_READ])
    tables = [tabulate_pixels(sample)]
    if sample.flat:
        frame = pd.DataFrame({"image": [facts.image for facts in sample.flat]})
        frame["mean"], frame["std"] = ([getattr(facts, name) for facts in sample.flat] for name in ("mean", "std"))
        columns = [Column("image"), Column("mean"), Column("std", "standard deviation", digits=4)]
        tables.append(Table("Images of one gray, or almost", frame, columns, max_rows=MAX_LISTED))
    return Section("Pixels", "pixels", tables=tables, pictures=[draw_levels(sample.levels)])


def build_contact_sheet(survey: Survey, sample: Sample | None) -> Section:
    """A few images of each label."""
    if sample is None:
        return Section("Contact sheet", "sheet", [NOTHING_READ])
    sections = []
    for number, (label, rows) in enumerate(sample.examples.items()):
        images, faults = [], []
        for row in rows:
            image = survey.rows.iloc[row]
            view = f"view {image['view'] if pd.notna(image['view']) else UNKNOWN}"
            details = f"{view}, {image['split']}" if "split" in image else view
            name, findings = str(image["image"]), _list_findings(image, survey)
            lines = [name, f"patient {image['patient']}", details, findings]
            if row in sample.thumbnails:
                alt = f"Radiograph {name}: {findings}"
                images.append(Image(sample.thumbnails[row], alt, lines, THUMBNAIL_PX))
            else:
                faults.append(f"{', '.join(lines)}: cannot be decoded: {sample.faults[row]}")
        title = "None of these labels present" if label is None else label
        nothing = [] if rows else ["There is none."]
        sections.append(Section(title, f"sheet-{number}", nothing, images=images, notes=faults))
    return Section("Contact sheet", "sheet", sections=sections)


def build_augmented_section(survey: Survey, sheet: Sequence[AugmentedImage] | None, augmented: bool) -> Section:
    """Training images and their augmented versions.

    Args:
        survey: The survey of the tables.
        sheet: The images; None: no augmentation, or no image files.
        augmented: Whether training augments images.
    """
    if not sheet:
        reason = "No training image could be read." if augmented else "Training images are not augmented."
        return Section("Augmentation", "augmented", [reason])
    sections = []
    for number, shown in enumerate(sheet):
        image = survey.rows.iloc[shown.row]
        versions = {"not augmented": shown.original}
        versions |= {f"epoch {epoch}": content for epoch, content in enumerate(shown.epochs, start=1)}
        images = [
            Image(content, f"{image['image']}, {version}", [version], AUGMENTED_PX)
            for version, content in versions.items()
        ]
        sections.append(
            Section(str(image["image"]), f"augmented-{number}", [_list_findings(image, survey)], images=images)
        )
    return Section(
        "Augmentation",
        "augmented",
        [
            f"Training images as they are in the store at {SHEET_PX} px, and as the first {N_EPOCHS} epochs of a "
            "training with this seed and these transforms see them."
        ],
        sections=sections,
    )


def tabulate_duplicates(groups: Sequence[Duplicates]) -> Table:
    """Files with the same bytes; copies in several parts of the split are a leak."""
    rows = [
        (
            name_some(group.images, MAX_NAMES),
            name_some(group.patients, MAX_NAMES),
            ", ".join(group.parts) + (": leak" if len(group.parts) > 1 else ""),
        )
        for group in groups
    ]
    names = ["images", "patients", "parts of the split"]
    frame = pd.DataFrame(rows, columns=names)
    return Table("The same file under several names", frame, list(map(Column, names)), max_rows=MAX_LISTED)


def _list_findings(image: pd.Series, survey: Survey) -> str:
    present = [label for label in survey.data.labels if image[label] == 1]
    unknown = sum(pd.isna(image[label]) for label in survey.data.labels)
    findings = ", ".join(present) or "none of these labels present"
    return f"{findings} ({unknown} unknown)" if unknown else findings
