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
    """The parts of a split as loaders over one store: train, val and test, or whatever other data are divided into.

    Args:
        data: The index and its split.
        img_size: Side of the images, pixels.
        batch_size: Images of a batch, over all devices.
        resize: How an image that is not square becomes square.
        cache_dir: Folder of the stores.
        augment: Augmentation of training images of this size.
        sampler: How training images are drawn; None: every one once an epoch.
        seed: Of the order and the augmentation.
        num_workers: Processes that augment training images. Images that are not augmented come from one thread,
            whatever the number. 0: batches are made between the steps, without workers. None: chosen from the machine.
            Changes no result.

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
        parts: The rows of the index of train, val and test that could be decoded, from ``setup`` on.
        dropped: Images that are not used: ``image``, ``path``, ``reason``, from ``setup`` on.
        repeats: (N,) how often an epoch draws each training image, from ``setup`` on.
        first_epoch: The epoch that training begins or goes on in.
        n_batches_done: Batches of that epoch that are completed: no image of them is read.
        features: What the loaders of train and val yield in place of images; None: images.
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
            batch_size: Images of a batch.
            augment: A choice of ``conf/augment/``, or transforms.
            cache_dir: Folder of the decoded images and of the synthetic data.
            options: ``sampler``, ``seed`` and ``num_workers`` of the class.

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
        """The drawn data set: ``CXRDataModule.from_synthetic(img_size=64, batch_size=32)``.

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
        """Any table with a row an image: ``CXRDataModule.from_table("t.csv", {"columns.patient": "patient"})``.

        Args:
            table: The CSV or Parquet file.
            settings: Keys of ``conf/data/table.yaml``; those of ``columns`` are dotted.
            options: As for ``from_config``.
        """
        return cls.from_config(_read_data("table", {"table": str(table), **(settings or {})}), **options)

    def prepare_data(self) -> None:
        """Prepare the images on the disk where they are not, and open them. It is done once.

        Rank 0 does it before the others, as Lightning calls it; they find what it wrote.

        Raises:
            DataError: Images cannot be prepared or fetched.
        """
        if not hasattr(self, "store"):
            self.store = open_data_store(self.data, self.img_size, self.resize, self.cache_dir)

    def setup(self, stage: str | None = None) -> None:
        """Divide the images that could be decoded into the parts of the split. It is done once, for all stages.

        Raises:
            ConfigError: A Trainer of one's own has several devices.
            DataError: Too many images could not be decoded, or none of a part.
            LeakageError: The same file stands in two parts, and ``data.allow_copies`` is not true.
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
        self.parts = parts  # last: what failed above is tried again

    @property
    def labels(self) -> tuple[str, ...]:
        """The findings, in order."""
        return tuple(self.data.labels)

    def skip_to(self, epoch: int, n_batches_done: int) -> None:
        """Let training go on in an epoch after so many of its batches."""
        self.first_epoch, self.n_batches_done = epoch, n_batches_done

    @property
    def n_cached(self) -> int | None:
        """Units of the network behind the ``features`` of a batch; None where it brings images."""
        return None if self.features is None else self.features.n_units

    def train_dataloader(self) -> DataLoader[Batch]:
        sampler = EpochSampler(
            self.repeats, self.seed, first_epoch=self.first_epoch, n_done=self.n_batches_done * self.batch_size
        )
        shares = BatchShares(sampler, self.batch_size, rank(), n_ranks())
        if self.features is not None:
            dataset = TrainFeatures(self.parts["train"], self.data.labels, self.features)
            return self._loader(dataset, False, batch_sampler=shares)
        return self._loader(self._train_images(), self.augment is not None, batch_sampler=shares)

    def val_dataloader(self) -> DataLoader[Batch]:
        if self.features is None:
            return self.plain_dataloader("val", rank(), n_ranks())
        return self._share(ValFeatures(self.parts["val"], self.data.labels, self.features), rank(), n_ranks())

    def test_dataloader(self) -> DataLoader[Batch]:
        return self.plain_dataloader("test", rank(), n_ranks())

    predict_dataloader = test_dataloader

    def view_dataloader(self, view: int) -> DataLoader[Batch]:
        """The training images in the order of their table, augmented as epoch ``view`` augments them."""
        draws = [Draw(view, row, 0) for row in range(len(self.parts["train"]))]
        return self._loader(self._train_images(), self.augment is not None, sampler=draws, batch_size=self.batch_size)

    def statistics_dataloader(self, rank: int = 0, n_ranks: int = 1) -> DataLoader[Batch]:
        """The training images once, shuffled, without augmentation, in whole batches that the ranks share."""
        images = PlainImages(self.parts["train"], self.data.labels, self.store)
        batches = draw_whole_batches(len(images), self.batch_size, self.seed)
        return self._loader(images, False, batch_sampler=batches[rank::n_ranks])

    def _train_images(self) -> TrainImages:
        part = self.data.name_rows(self.parts["train"])  # an image's augmentation is a function of this name
        return TrainImages(part, self.data.labels, self.store, self.augment, self.seed)

    def plain_dataloader(self, part: str, rank: int = 0, n_ranks: int = 1) -> DataLoader[Batch]:
        """The images of a part in the order of its table, without augmentation.

        Args:
            part: Its name.
            rank: Number of a device that takes its share, the rows rank, rank + n_ranks, ...
            n_ranks: Number of devices.
        """
        return self._share(PlainImages(self.parts[part], self.data.labels, self.store), rank, n_ranks)

    def describe_loading(self) -> str:
        """How the training batches come about, for the log."""
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
            # The data sets yield whole batches.
            **(PROCESS_OPTIONS | {"num_workers": n_processes} if n_processes else {"collate_fn": dict}),
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator().manual_seed(self.seed),  # leaves torch's global one alone
        )


def _read_data(choice: str, settings: Mapping[str, Any] | None) -> DataConfig:
    named = {f"data.{key}": value for key, value in (settings or {}).items()}
    return compose_defaults("prepare", PrepareConfig, named, [f"data={choice}"]).data
