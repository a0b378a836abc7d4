"""Batches for training, validation and test."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from cxrlit.config import AugmentConfig, DataConfig, PrepareConfig, SamplerConfig, TrainConfig
from cxrlit.config.compose import compose_defaults
from cxrlit.core.errors import ConfigError, format_count
from cxrlit.core.labels import LABELS
from cxrlit.core.ranks import n_ranks, rank
from cxrlit.data.augment import Augment, build_augment
from cxrlit.data.copies import notice_images
from cxrlit.data.dataset import SplitData, divide_data, load_data
from cxrlit.data.dropped import check_dropped
from cxrlit.data.image_io.decode import Resize
from cxrlit.data.index import read_targets
from cxrlit.data.loaders import PROCESS_OPTIONS, AheadLoader, ProcessLoader, choose_num_workers
from cxrlit.data.sampler import BatchShares, Draw, EpochSampler, count_repeats, draw_whole_batches
from cxrlit.data.store.open_stores import open_data_store
from cxrlit.data.store.reader import Store
from cxrlit.data.torch_datasets import Batch, Features, PlainImages, TrainFeatures, TrainImages, ValFeatures


class CXRDataModule(LightningDataModule):
    """Loaders for the parts of a split over one store: train, val and test, or other parts.

    Args:
        data: The data with their index and split.
        img_size: Side of the images, pixels.
        batch_size: Images per batch, over all devices.
        resize: How to make a rectangular image square.
        cache_dir: Folder of the stores.
        augment: Augmentation of training images of this size; None: none.
        sampler: How training images are drawn; None: each once per epoch.
        seed: Seed of order and augmentation.
        num_workers: Processes that augment training images. Images without augmentation come from one thread, whatever
            the number. 0: batches are made between the steps, without workers. None: chosen from the machine. Does not
            affect results.

    Raises:
        ConfigError: ``augment`` is for images of another size.

    >>> datamodule = CXRDataModule.from_synthetic({"n_patients": 20}, img_size=32, cache_dir=getfixture("tmp_path"))
    Drawing ...
    >>> datamodule.setup("fit")
    Preparing ...
    >>> next(iter(datamodule.train_dataloader()))["image"].shape
    torch.Size([32, 1, 32, 32])

    Attributes:
        store: The images at ``img_size``, from ``setup`` on.
        parts: Rows of the index of train, val and test with decoded images, from ``setup`` on.
        dropped: Excluded images: ``image``, ``path``, ``reason``, from ``setup`` on.
        repeats: (N,) how often an epoch draws each training image, from ``setup`` on.
        first_epoch: Epoch in which training starts or resumes.
        n_batches_done: Completed batches of that epoch; their images are not read again.
        features: Cached features that the loaders of train and val yield instead of images; None: images.
    """

    store: Store
    parts: dict[str, pd.DataFrame]
    dropped: pd.DataFrame
    repeats: NDArray[np.float64]

    def __init__(
        self,
        data: SplitData,
        *,
        img_size: int,
        batch_size: int,
        resize: Resize,
        cache_dir: Path,
        augment: Augment | None = None,
        sampler: SamplerConfig | None = None,
        seed: int = 0,
        num_workers: int | None = None,
    ) -> None:
        super().__init__()
        if augment is not None and augment.img_size != img_size:
            raise ConfigError(f"img_size={img_size}: augment is for {augment.img_size} px: build both for one size")
        self.data, self.img_size, self.batch_size = data, img_size, batch_size
        self.resize, self.cache_dir = resize, cache_dir
        self.augment, self.sampler, self.seed = augment, sampler, seed
        self.first_epoch, self.n_batches_done = 0, 0
        self.features: Features | None = None
        self.num_workers = choose_num_workers() if num_workers is None else num_workers

    @classmethod
    def from_config(
        cls,
        config: DataConfig | Mapping[str, Any],
        *,
        labels: Sequence[str] = LABELS,
        img_size: int = 224,
        batch_size: int = 32,
        augment: str | AugmentConfig = "default",
        cache_dir: str | Path = "cache",
        **options: Any,
    ) -> Self:
        """Read and split the data of a config.

        Args:
            config: Section ``data`` of a config, or ``source`` and keys of ``conf/data/source/<source>.yaml``.
            labels: The findings, in order.
            img_size: Side of the images, pixels.
            batch_size: Images per batch.
            augment: Name of a file in ``conf/augment/``, or transforms.
            cache_dir: Folder of the decoded images and of the synthetic data.
            options: ``sampler``, ``seed`` and ``num_workers``, as in the class.

        Raises:
            ConfigError: A transform cannot be used.
            DataError: The data cannot be read.
        """
        if isinstance(config, Mapping):
            config = _read_data(str(config.get("source")), {key: config[key] for key in config if key != "source"})
        if isinstance(augment, str):
            augment = compose_defaults("train", TrainConfig, {}, [f"augment={augment}"]).augment
        folder = Path(cache_dir).expanduser().absolute()
        return cls(
            load_data(config, list(labels), folder),
            img_size=img_size,
            batch_size=batch_size,
            resize=config.resize,
            cache_dir=folder,
            augment=build_augment(augment, img_size),
            **options,
        )

    @classmethod
    def from_synthetic(cls, settings: Mapping[str, Any] | None = None, **options: Any) -> Self:
        """The embedded data set: ``CXRDataModule.from_synthetic(img_size=64, batch_size=32)``.

        Args:
            settings: Keys of ``conf/data/synthetic.yaml``, such as ``{"n_patients": 200}``.
            options: As for ``from_config``.
        """
        return cls.from_config(_read_data("synthetic", settings), **options)

    @classmethod
    def from_nih(cls, root: str | Path, settings: Mapping[str, Any] | None = None, **options: Any) -> Self:
        """NIH ChestX-ray14: ``CXRDataModule.from_nih("/data/nih")``.

        Args:
            root: Folder of the label table and the images.
            settings: Keys of ``conf/data/nih.yaml``, such as ``{"split": "grouped"}``.
            options: As for ``from_config``.
        """
        return cls.from_config(_read_data("nih", {"root": str(root), **(settings or {})}), **options)

    @classmethod
    def from_table(cls, table: str | Path, settings: Mapping[str, Any] | None = None, **options: Any) -> Self:
        """Any table with one row per image: ``CXRDataModule.from_table("t.csv", {"columns.patient": "patient"})``.

        Args:
            table: The CSV or Parquet file.
            settings: Keys of ``conf/data/table.yaml``; write those of ``columns`` with dots.
            options: As for ``from_config``.
        """
        return cls.from_config(_read_data("table", {"table": str(table), **(settings or {})}), **options)

    def prepare_data(self) -> None:
        """Prepare the images on disk if necessary, and open them. Further calls do nothing.

        Lightning calls it on rank 0 first; the other ranks use the files that rank 0 wrote.

        Raises:
            DataError: Images cannot be prepared or fetched.
        """
        if not hasattr(self, "store"):
            self.store = open_data_store(self.data, self.img_size, self.resize, self.cache_dir)

    def setup(self, stage: str | None = None) -> None:
        """Divide the decoded images into the parts of the split, for all stages. Further calls do nothing.

        Raises:
            ConfigError: The user's own Trainer uses several devices.
            DataError: Too many images could not be decoded, or all images of a part.
            LeakageError: The same file is in two parts, and ``data.allow_copies`` is not true.
        """
        if hasattr(self, "parts"):
            return
        if self.trainer is not None and self.trainer.world_size != n_ranks():
            raise ConfigError(
                f"this Trainer has {self.trainer.world_size} devices, and each would see all images: take one, or "
                "python train.py trainer=ddp trainer.devices=..."
            )
        self.prepare_data()
        data = self.data
        dropped = pd.concat([data.dropped, self.store.dropped], ignore_index=True)
        check_dropped(data.name_rows(dropped), int((self.store.positions >= 0).sum()), data.max_dropped)
        self.dropped = pd.concat([dropped, data.excluded], ignore_index=True)
        notice_images(data, self.store, data.split["split"].to_numpy(dtype=object), self.cache_dir)
        parts = divide_data(data, self.store.positions)
        if self.sampler is not None:
            self.repeats = count_repeats(read_targets(parts["train"], data.labels), data.labels, self.sampler)
        else:
            self.repeats = np.ones(len(parts.get("train", ())))
        self.parts = parts  # last, so that a failed setup is tried again

    @property
    def labels(self) -> tuple[str, ...]:
        """The findings, in order."""
        return tuple(self.data.labels)

    def skip_to(self, epoch: int, n_batches_done: int) -> None:
        """Resume in an epoch after some of its batches."""
        self.first_epoch, self.n_batches_done = epoch, n_batches_done

    @property
    def n_cached(self) -> int | None:
        """Number of network units that the cached ``features`` replace; None if batches contain images."""
        return None if self.features is None else self.features.n_units

    def train_dataloader(self) -> DataLoader[Batch]:
        """The training images or features from ``first_epoch`` on, without the completed batches; this rank's share."""
        sampler = EpochSampler(
            self.repeats, self.seed, first_epoch=self.first_epoch, n_done=self.n_batches_done * self.batch_size
        )
        shares = BatchShares(sampler, self.batch_size, rank(), n_ranks())
        if self.features is not None:
            dataset = TrainFeatures(self.parts["train"], self.data.labels, self.features)
            return self._loader(dataset, False, batch_sampler=shares)
        return self._loader(self._train_images(), self.augment is not None, batch_sampler=shares)

    def val_dataloader(self) -> DataLoader[Batch]:
        """The validation images or features in table order; this rank's share."""
        if self.features is None:
            return self.plain_dataloader("val", rank(), n_ranks())
        return self._share(ValFeatures(self.parts["val"], self.data.labels, self.features), rank(), n_ranks())

    def test_dataloader(self) -> DataLoader[Batch]:
        """The test images in table order, without augmentation; this rank's share."""
        return self.plain_dataloader("test", rank(), n_ranks())

    predict_dataloader = test_dataloader

    def view_dataloader(self, view: int) -> DataLoader[Batch]:
        """The training images in table order, augmented as in epoch ``view``."""
        draws = [Draw(view, row, 0) for row in range(len(self.parts["train"]))]
        return self._loader(self._train_images(), self.augment is not None, sampler=draws, batch_size=self.batch_size)

    def statistics_dataloader(self, rank: int = 0, n_ranks: int = 1) -> DataLoader[Batch]:
        """The training images once, shuffled, not augmented, in whole batches that the ranks share."""
        images = PlainImages(self.parts["train"], self.data.labels, self.store)
        batches = draw_whole_batches(len(images), self.batch_size, self.seed)
        return self._loader(images, False, batch_sampler=batches[rank::n_ranks])

    def _train_images(self) -> TrainImages:
        part = self.data.name_rows(self.parts["train"])  # the key of an image's augmentation
        return TrainImages(part, self.data.labels, self.store, self.augment, self.seed)

    def plain_dataloader(self, part: str, rank: int = 0, n_ranks: int = 1) -> DataLoader[Batch]:
        """The images of a part in table order, without augmentation.

        Args:
            part: Name of the part.
            rank: Rank of the device, which gets the rows rank, rank + n_ranks, ...
            n_ranks: Number of devices.
        """
        return self._share(PlainImages(self.parts[part], self.data.labels, self.store), rank, n_ranks)

    def describe_loading(self) -> str:
        """How the training batches are loaded, for the log."""
        if self.num_workers == 0:
            return "no loader workers"
        if self.augment is None or self.features is not None:
            how = "a thread reads batches ahead"
        else:
            how = format_count(self.num_workers, "loader worker")
        return f"{how}, into pinned memory" if torch.cuda.is_available() else how

    def _share(self, dataset: PlainImages | ValFeatures, rank: int, n_ranks: int) -> DataLoader[Batch]:
        rows = range(rank, len(dataset), n_ranks)
        return self._loader(dataset, False, sampler=rows, batch_size=-(-self.batch_size // n_ranks))

    def _loader(self, dataset: Dataset[Any], augments: bool, **order: Any) -> DataLoader[Batch]:
        n_processes = self.num_workers if augments else 0
        loader = ProcessLoader if n_processes else AheadLoader if self.num_workers else DataLoader
        return loader(
            dataset,
            **order,
            # The datasets yield whole batches.
            **(PROCESS_OPTIONS | {"num_workers": n_processes} if n_processes else {"collate_fn": dict}),
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator().manual_seed(self.seed),  # does not advance torch's global generator
        )


def _read_data(choice: str, settings: Mapping[str, Any] | None) -> DataConfig:
    named = {f"data.{key}": value for key, value in (settings or {}).items()}
    return compose_defaults("prepare", PrepareConfig, named, [f"data={choice}"]).data
