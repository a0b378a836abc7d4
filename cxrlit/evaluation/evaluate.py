"""Evaluate a checkpoint on the validation and test images of its own split."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import RichProgressBar
from rich import get_console
from rich.table import Table

from cxrlit.config import EvaluateConfig, EvaluateDataConfig, MachineConfig, SeveralData, SyntheticData, TrainConfig
from cxrlit.console import print_table, say, show_path
from cxrlit.data.datamodule import CXRDataModule
from cxrlit.data.index import hash_rows
from cxrlit.data.load import LoadedData, check_dropped, read_data
from cxrlit.errors import ConfigError, DataError, name_some
from cxrlit.evaluation.predictions import make_predictions, split_arrays, write_predictions
from cxrlit.evaluation.tables import tabulate_auroc, tabulate_confusion, tabulate_summary
from cxrlit.evaluation.thresholds import GRID, Thresholds, tune_thresholds
from cxrlit.files import write_csv, write_json
from cxrlit.model.densenet import build_network
from cxrlit.model.module import CXRModule
from cxrlit.training.checkpoint import Checkpoint, is_unfinished, read_checkpoint
from cxrlit.training.checks import check_ancestors
from cxrlit.training.plan import choose_precision
from cxrlit.training.trainer import LIGHTNING_PRECISION, quiet_lightning

FILES = (
    "predictions_val.csv",
    "predictions_test.csv",
    "eval_summary.csv",
    "eval_per_label_auroc.csv",
    "confusion_template.csv",
    "thresholds.json",
    "dropped.csv",
)


def evaluate_phase(folder: Path, machine: MachineConfig, cache_dir: str) -> Path:
    """Evaluate a phase that was just trained, into its ``eval/``."""
    config = EvaluateConfig(
        ckpt=str(folder),
        out=None,
        cache_dir=cache_dir,
        data=EvaluateDataConfig(root=None, roots=None, store=None),
        trainer=MachineConfig(accelerator=machine.accelerator, num_workers=machine.num_workers),
    )
    return evaluate_checkpoint(config)


def evaluate_checkpoint(config: EvaluateConfig) -> Path:
    """Predict validation and test, tune thresholds on validation, write the tables and print them.

    Data, split, preprocessing and precision are those saved with the checkpoint.

    Args:
        config: From ``read_config``.

    Returns:
        The folder of the tables: ``FILES``.

    Raises:
        CXRLitError: The checkpoint cannot be read, or images of its split are gone.
    """
    quiet_lightning()
    checkpoint = read_checkpoint(Path(config.ckpt))
    if is_unfinished(checkpoint.path):
        say(f"warning: {checkpoint.path.parent} is not finished: a later epoch may be better", style="yellow")
    precision = choose_precision(checkpoint.facts.precision, config.trainer.accelerator)
    trained = move_data(checkpoint.config, config)
    data = load_split(checkpoint, trained)
    phase = trained.phases.get(checkpoint.facts.phase)
    datamodule = CXRDataModule(
        data,
        img_size=phase.img_size,
        batch_size=phase.batch_size,
        resize=trained.data.resize,
        cache_dir=Path(trained.cache_dir),
        num_workers=config.trainer.num_workers,
    )
    module = CXRModule(
        checkpoint.load_into(build_network("none", trained.model.normalize, len(data.labels), seed=0)),
        labels=data.labels,
    )
    shown = get_console().is_terminal
    trainer = Trainer(
        accelerator=config.trainer.accelerator,
        devices=1,
        precision=LIGHTNING_PRECISION[precision],
        logger=False,
        callbacks=[RichProgressBar(leave=False)] if shown else [],
        enable_progress_bar=shown,
        enable_checkpointing=False,
        enable_model_summary=False,
        deterministic=True,
        use_distributed_sampler=False,
    )
    predictions = {part: predict(part, module, datamodule, trainer) for part in ("val", "test")}
    thresholds = tune_thresholds(*split_arrays(predictions["val"]), data.labels)
    name = "eval" if checkpoint.path.stem == "best" else f"eval-{checkpoint.path.stem}"
    out = Path(config.out) if config.out else checkpoint.path.parent / name
    write_tables(out, predictions, thresholds, checkpoint, data)
    write_csv(out / "dropped.csv", datamodule.dropped)
    if len(datamodule.dropped):
        say(
            f"warning: {len(datamodule.dropped)} images could not be evaluated: {show_path(out / 'dropped.csv')}",
            style="yellow",
        )
    say(f"The tables are in {show_path(out)}")
    return out


def move_data(config: TrainConfig, moved: EvaluateConfig) -> TrainConfig:
    """The config of the training with the folders of this machine."""
    data, roots = config.data, moved.data.roots or {}
    places = {key: value for key in ("root", "store") if (value := getattr(moved.data, key)) is not None}
    if isinstance(data, SeveralData):
        unknown = [*places, *(f"roots.{name}" for name in roots if name not in data.sources)]
        if unknown:
            raise ConfigError(
                f"data.{unknown[0]}: the checkpoint was trained on {', '.join(data.sources)}: set data.roots"
            )
        sections = {name: getattr(data, name).model_copy(update={"root": root}) for name, root in roots.items()}
        data = data.model_copy(update=sections)
    elif roots or (places and isinstance(data, SyntheticData)):
        raise ConfigError(f"data.{next(iter(places), 'roots')}: the checkpoint was trained on {data.source} data alone")
    else:
        data = data.model_copy(update=places)
    return config.model_copy(update={"data": data, "cache_dir": moved.cache_dir})


def load_split(checkpoint: Checkpoint, config: TrainConfig) -> LoadedData:
    """The data that a checkpoint was trained with, divided as it was then.

    Raises:
        DataError: An image has another file, patient or target now, or too many of the images are gone.
        LeakageError: A patient of training stands in the checkpoint's own validation or test part.
    """
    read = read_data(config.data, config.labels, Path(config.cache_dir))
    split = checkpoint.facts.read_split()
    now = split["image"].map(dict(zip(read.index["image"], hash_rows(read.index, read.labels), strict=True)))
    changed = split.loc[now.notna() & (now != checkpoint.facts.rows), "image"].tolist()
    if changed:
        raise DataError(
            f"{read.name}: {len(changed)} images have another file, patient or target than during training "
            f"({name_some(changed)}): these are other data"
        )
    gone = split.loc[now.isna(), ["image"]].assign(path="", reason="in the split, and no longer there")
    check_dropped(gone, len(split) - len(gone), config.data.max_dropped)
    index = read.index[read.index["image"].isin(split["image"])].sort_values("image", kind="stable", ignore_index=True)
    data = LoadedData(
        name=read.name,
        labels=read.labels,
        index=index,
        dropped=gone,
        left_out=read.left_out.iloc[:0],
        stores=read.stores,
        split=split[split["image"].isin(index["image"])].reset_index(drop=True),
        split_name=checkpoint.facts.split_name,
        max_dropped=config.data.max_dropped,
    )
    check_ancestors(data, set(checkpoint.facts.trained_patients))
    return data


def predict(part: str, module: CXRModule, datamodule: CXRDataModule, trainer: Trainer) -> pd.DataFrame:
    """The predictions table of a part, each image once, in the order of its table."""
    batches = trainer.predict(module, datamodule.plain_dataloader(part))
    assert batches is not None
    probs: NDArray[np.float32] = torch.cat(batches).numpy()  # type: ignore[arg-type]
    return make_predictions(datamodule.parts[part], datamodule.data.labels, probs)


def write_tables(
    out: Path,
    predictions: dict[str, pd.DataFrame],
    thresholds: Thresholds,
    checkpoint: Checkpoint,
    data: LoadedData,
) -> None:
    """Write ``FILES`` into a folder and print the per-label table."""
    facts = checkpoint.facts
    split_hash = facts.split_hash
    name = f"{facts.phase}-{facts.phase_id}/{checkpoint.path.name}"  # the same wherever the folder lies
    origin = {"split_name": data.split_name, "split_hash": split_hash, "checkpoint": name}
    aurocs = tabulate_auroc(predictions)
    summary = tabulate_summary(predictions, thresholds, origin)
    confusion = tabulate_confusion(predictions["test"], thresholds)
    for part, table in predictions.items():
        write_predictions(out / f"predictions_{part}.csv", table)
    write_csv(out / "eval_summary.csv", summary)
    write_csv(out / "eval_per_label_auroc.csv", aurocs)
    write_csv(out / "confusion_template.csv", confusion)
    write_json(
        out / "thresholds.json",
        {
            "tuned_for": "F1",
            "tuned_on": "val",
            "grid": [GRID[0], GRID[-1], 0.01],
            **origin,
            "thresholds": {
                label: None if np.isnan(value) else value
                for label, value in zip(thresholds.labels, thresholds.values.tolist(), strict=True)
            },
            "reasons": thresholds.reasons,
        },
    )
    print_tables(aurocs, summary, confusion, f"{data.name}, {data.split_name} split {split_hash}")


def print_tables(aurocs: pd.DataFrame, summary: pd.DataFrame, confusion: pd.DataFrame, title: str) -> None:
    """The per-label table, and a line for each split."""
    say(f"Evaluation: {title}")
    table = Table()
    table.add_column("label", no_wrap=True)
    for column in ("AUROC val", "AUROC test", "AP test", "positives test", "threshold", "F1 test"):
        table.add_column(column, justify="right")
    by_split = {part: rows.set_index("label") for part, rows in aurocs.groupby("split")}
    for row in confusion.itertuples():
        val, test = by_split["val"].loc[str(row.label)], by_split["test"].loc[str(row.label)]
        table.add_row(
            str(row.label),
            _cell(val["auroc"]),
            _cell(test["auroc"]),
            _cell(test["average_precision"]),
            f"{test['positives']} / {test['images']}",
            _cell(row.threshold, 2),
            _cell(row.F1),
        )
    val, test = (summary[summary["split"] == part].iloc[0] for part in ("val", "test"))
    table.add_section()
    table.add_row(
        "macro",
        _cell(val["auroc_macro"]),
        _cell(test["auroc_macro"]),
        "",
        "",
        "",
        _cell(test["f1_macro"]),
        style="bold",
    )
    print_table(table)
    for part in (val, test):
        say(
            f"{part['split']}: macro AUROC {_cell(part['auroc_macro'])} over {part['n_labels']} labels, F1 macro "
            f"{_cell(part['f1_macro'])} micro {_cell(part['f1_micro'])} weighted {_cell(part['f1_weighted'])}, "
            f"{part['n_images']} images of {part['n_patients']} patients, {part['split_name']} split "
            f"{part['split_hash']}"
        )


def _cell(value: object, digits: int = 4) -> str:
    number = float(value)  # type: ignore[arg-type]
    return "undefined" if np.isnan(number) else f"{number:.{digits}f}"
