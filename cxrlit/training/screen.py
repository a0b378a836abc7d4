"""What is printed before the work: the data and the plan."""

from rich.table import Table

from cxrlit.config import Precision
from cxrlit.core.console import print_table, say, show_path
from cxrlit.core.errors import say_count
from cxrlit.data.dataset import LoadedData
from cxrlit.data.split import SPLITS
from cxrlit.training.plan import PlannedPhase

HIGHRES_LAYERS = 50


def print_data(data: LoadedData) -> None:
    """Images, patients and positives of each part of the split."""
    say(f"{data.name}: {say_count(len(data.index), 'image')}, {data.describe_split()}")
    table = Table()
    for column in ("", *SPLITS):
        table.add_column(column, justify="right" if column else "left")
    parts = [data.split["split"] == part for part in SPLITS]
    table.add_row("images", *(str(rows.sum()) for rows in parts))
    table.add_row("patients", *(str(data.split.loc[rows, "patient"].nunique()) for rows in parts), end_section=True)
    for label in data.labels:
        table.add_row(label, *(str((data.index.loc[rows, label] == 1).sum()) for rows in parts))
    print_table(table)
    if len(data.dropped):
        reasons = ", ".join(f"{count} {reason}" for reason, count in data.dropped["reason"].value_counts().items())
        say(f"{say_count(len(data.dropped), 'image of the table is', 'images of the table are')} dropped: {reasons}")
    if len(data.left_out):
        reasons = ", ".join(data.left_out["reason"].unique()[:5])
        say(f"{say_count(len(data.left_out), 'image is', 'images are')} left out: {reasons}")


def print_plan(phases: list[PlannedPhase], precision: Precision) -> None:
    """The phases to come, before the work: what each is, its folder, done or run."""
    say(f"Plan, in {precision}:")
    table = Table()
    for column in ("phase", "what", "folder", "status"):
        table.add_column(column, overflow="fold")
    for phase in phases:
        config = phase.config
        trains = str(config.n_unfreeze_schedule or config.n_unfreeze)
        table.add_row(
            phase.name,
            f"{config.img_size} px, batch {config.batch_size}, last {trains} layers, BatchNorm "
            f"{'frozen' if config.freeze_bn else 'trains'}, lr {config.lr:g}, {say_count(config.max_epochs, 'epoch')}",
            show_path(phase.folder),
            phase.status if phase.position is None else f"{phase.status} at {phase.position.describe()}",
        )
    print_table(table)
    for phase in phases:
        if phase.name == "highres" and phase.config.n_unfreeze > HIGHRES_LAYERS:
            say(
                f"warning: highres unfreezes {phase.config.n_unfreeze} layers; it is a short pass meant for 25 to "
                f"{HIGHRES_LAYERS}, and more of them overfit and need more memory at this img_size",
                style="yellow",
            )
