"""Read a data set according to its section of the config."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from cxrlit.config import (
    AnySource,
    CheXpertConfig,
    DataConfig,
    MIMICConfig,
    NIHConfig,
    NIHGoogleConfig,
    PadChestConfig,
    SeveralData,
    SplitConfig,
    SyntheticConfig,
    TableConfig,
    VinDrConfig,
)
from cxrlit.core.console import say
from cxrlit.core.errors import ConfigError, DataError
from cxrlit.core.files import hash_value, hold_lock
from cxrlit.data.image_files import DiskFiles, ImageFiles
from cxrlit.data.index import KEY
from cxrlit.data.near_files import check_folder
from cxrlit.data.sources import Source
from cxrlit.data.sources.chexpert import read_chexpert
from cxrlit.data.sources.mimic import read_mimic
from cxrlit.data.sources.nih import read_nih
from cxrlit.data.sources.nih_google import read_nih_google
from cxrlit.data.sources.padchest import read_padchest
from cxrlit.data.sources.table import read_any_table
from cxrlit.data.sources.vindr import read_vindr
from cxrlit.data.store.remote import read_stored_files
from cxrlit.data.synthetic.drawn_set import SYNTHETIC_VERSION, write_synthetic

FRONTAL = {"PA", "AP"}


def choose_sources(config: DataConfig) -> list[AnySource]:
    """The config sections of the chosen data sets, in config order."""
    return config.chosen() if isinstance(config, SeveralData) else [config]


def name_sources(config: DataConfig) -> list[str]:
    """Names of the chosen data sets, in config order."""
    return [section.name if isinstance(section, TableConfig) else section.source for section in choose_sources(config)]


def find_root(config: AnySource, cache_dir: Path) -> Path:
    """Folder of a data set's tables; the synthetic set is drawn on first use.

    Raises:
        ConfigError: The config does not give the folder.
    """
    if isinstance(config, SyntheticConfig):
        return _draw_synthetic(config, cache_dir)
    if isinstance(config, TableConfig) and config.root is None and config.table is not None:
        return Path(config.table).parent
    chosen, section = _name_section(config)
    if isinstance(config, TableConfig) and config.table is None:
        raise ConfigError(f"{chosen} needs {section}.table=PATH, your CSV or Parquet file")
    if config.root is None:
        raise ConfigError(f"{chosen} needs {section}.root=PATH, the folder of the images and the label table")
    return Path(config.root)


def _name_section(config: AnySource) -> tuple[str, str]:
    """The setting that chose a data set, and the section of its keys, as a user types them."""
    if isinstance(config, SplitConfig):
        return f"data={config.source}", "data"
    return f"data.sources=[{config.source}]", f"data.{config.source}"


def read_source(config: AnySource, labels: Sequence[str], cache_dir: Path) -> Source:
    """Read a data set; the synthetic set is drawn on first use."""
    root = find_root(config, cache_dir)
    if isinstance(config, SyntheticConfig):
        return read_nih(root, DiskFiles(root), labels, name="synthetic")
    config = config.model_copy(update={"root": str(root)})
    files: ImageFiles
    if config.store is None:
        check_folder(root)
        files = DiskFiles(root, config.follow_links, f"{_name_section(config)[1]}.follow_links")
    else:
        files = read_stored_files(config.store, cache_dir)
    match config:
        case NIHConfig():
            return read_nih(root, files, labels)
        case NIHGoogleConfig():
            return read_nih_google(config, files, labels)
        case CheXpertConfig():
            return read_chexpert(config, files, labels)
        case MIMICConfig():
            return read_mimic(config, files, labels)
        case PadChestConfig():
            return read_padchest(config, files, labels)
        case VinDrConfig():
            return read_vindr(config, files, labels)
        case TableConfig():
            return read_any_table(config, files, labels)


def choose_views(source: Source, views: Sequence[str] | None) -> tuple[Source, pd.DataFrame]:
    """Split off the images with unwanted views, and return the rest and those.

    In a data set without any views, every image counts as frontal.

    Raises:
        DataError: No image has a wanted view.
    """
    if views is None or (set(views) == FRONTAL and source.index["view"].isna().all()):
        return source, source.index.loc[[], [*KEY, "path"]].assign(reason="")
    wanted = source.index["view"].isin(views).to_numpy()
    if not wanted.any():
        there = sorted(source.index["view"].fillna("unknown").unique())
        raise DataError(f"data.views={list(views)}: {source.name} has no such image; its views are {', '.join(there)}")
    unwanted = source.index[~wanted]
    reasons = "view " + unwanted["view"].fillna("unknown").astype(str) + ", which data.views leaves out"
    kept = replace(
        source,
        index=source.index[wanted].reset_index(drop=True),
        official=None if source.official is None else source.official[wanted],
    )
    return kept, unwanted[[*KEY, "path"]].assign(reason=reasons)


def _draw_synthetic(config: SyntheticConfig, cache_dir: Path) -> Path:
    drawing = {"version": SYNTHETIC_VERSION, **config.model_dump(include={"n_patients", "image_px", "seed"})}
    root = cache_dir / f"synthetic-{hash_value(drawing)}"
    if not root.is_dir():
        with hold_lock(root, f"waiting for another process that draws {root}"):
            if not root.is_dir():
                say(f"Drawing the synthetic data set into {root}, once")
                write_synthetic(root, n_patients=config.n_patients, seed=config.seed, image_px=config.image_px)
    return root
