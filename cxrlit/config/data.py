"""Keys of ``data``: where a data set is, which images and labels count, and how it is split."""

from typing import Annotated, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from cxrlit.config.types import ConfigSection, Folder, Fraction, Seed

View = Literal["PA", "AP", "LATERAL"]
Uncertain = Literal["ignore", "zero", "one"]
SourceName = Literal["nih", "chexpert", "mimic", "padchest", "vindr", "table"]


class SourceConfig(ConfigSection):
    """Keys of every data source."""

    default_weights: ClassVar[str] = "imagenet"

    root: Folder | None = Field(description="folder of the tables and the images")
    store: str | None = Field(description="address of prepared images to read in place of the files: a folder or a URL")
    follow_links: bool = Field(description="read files that are links out of root, as into a cache beside it")
    views: list[View] | None = Field(
        description="views that count, of PA, AP and LATERAL, where a data set tells views; null: every image"
    )

    @model_validator(mode="after")
    def _check_views(self) -> Self:
        if self.views is not None and (not self.views or len(set(self.views)) < len(self.views)):
            raise ValueError("data.views names each view once, such as [PA,AP]; null takes every image")
        return self

    @model_validator(mode="after")
    def _check_store(self) -> Self:
        links = [urlsplit(link) for link in (self.store or "").split("::") if "://" in link]
        if any("@" in link.netloc or link.query for link in links):
            raise ValueError(
                "data.store takes no password and no ?query: the address is saved with every checkpoint; give "
                "credentials through the environment, as fsspec's protocols read them"
            )
        return self


class UncertainConfig(SourceConfig):
    """Keys of a source with uncertain labels."""

    uncertain: Uncertain | dict[str, Uncertain] = Field(
        description="what an uncertain label counts as: ignore (unknown), zero or one; or one of them by label, "
        "a label that is not named is ignored"
    )


class MinedConfig(UncertainConfig):
    """Keys of a source whose labels were mined from reports, which do not mention most findings."""

    unmentioned: Literal["zero", "ignore"] = Field(description="what a finding that the report does not mention counts")


class UngroupedConfig(SourceConfig):
    """Keys of a source whose tables may lack patient ids."""

    patient: Literal["image"] | None = Field(
        description="image: every image is a patient of its own, where the data set does not tell patients apart"
    )


class SyntheticConfig(SourceConfig):
    """The embedded data set, drawn once in NIH's layout under ``cache_dir``."""

    default_weights: ClassVar[str] = "none"

    source: Literal["synthetic"]
    root: None = None
    store: None = None
    follow_links: Literal[False]
    n_patients: int = Field(ge=20, le=100_000)
    image_px: int = Field(ge=32, le=1024, description="side of the drawn images, pixels")
    seed: Seed = Field(description="seed of the drawings")


class NIHConfig(SourceConfig):
    """NIH ChestX-ray14."""

    source: Literal["nih"]


class NIHGoogleConfig(SourceConfig):
    """Expert labels for part of NIH ChestX-ray14; for evaluation only."""

    source: Literal["nih_google"]
    table: Folder | None = Field(description="table of the answers; null: that of the package torchxrayvision")


class CheXpertConfig(MinedConfig):
    """CheXpert."""

    source: Literal["chexpert"]


class MIMICConfig(MinedConfig):
    """MIMIC-CXR-JPG."""

    source: Literal["mimic"]


class PadChestConfig(SourceConfig):
    """PadChest."""

    source: Literal["padchest"]


class VinDrConfig(UngroupedConfig):
    """VinDr-CXR."""

    source: Literal["vindr"]
    agreement: Literal["any", "majority", "all"] = Field(description="how many readers must agree")


class ColumnsConfig(ConfigSection):
    """Column names of a table; null: the column of the key's own name, if any."""

    image: str = Field(min_length=1, description="path of the image below data.root")
    patient: str | None
    study: str | None
    view: str | None
    age: str | None = Field(description="years")
    sex: str | None
    split: str | None = Field(description="train, val or test of each row: the table's own split")
    findings: str | None = Field(description="one column with the names of all that is present, such as A|B")
    labels: dict[str, str] | None = Field(description="a column of 1, 0 and blank for each label; null: named as it is")


class TableConfig(UncertainConfig, UngroupedConfig):
    """Any CSV or Parquet table."""

    source: Literal["table"]
    name: str = Field(pattern=r"^[a-z][a-z0-9_-]*$", description="what to call the data set")
    table: Folder | None = Field(description="the file: .csv, .csv.gz, .tsv or .parquet")
    columns: ColumnsConfig
    separator: str = Field(min_length=1, description="between the names in columns.findings")
    uncertain_value: float | None = Field(description="the value of a label column that means uncertain, such as -1")


class SplitConfig(ConfigSection):
    """How one or several data sets are split and prepared."""

    needs_train: ClassVar[bool] = True
    """Whether a split must have a training part."""

    split: Literal["auto", "official", "grouped", "kfold", "file"] = Field(
        description="auto: kfold where data.fold is set, official where the data set has one, else grouped"
    )
    split_seed: Seed = Field(description="seed of the split alone, so that several seeds share one split")
    split_file: Folder | None = Field(description="table with the columns image and split, such as a split.csv")
    fold: int | None = Field(ge=0, description="which of the n_folds tests")
    n_folds: int = Field(ge=2, le=100)
    val_fraction: float = Field(gt=0, lt=1, description="share of the images outside test that validate")
    test_fraction: float = Field(gt=0, lt=1, description="share of all images that test, where no official list says")
    resize: Literal["pad", "crop", "stretch"] = Field(description="how an image that is not square becomes square")
    max_dropped: Fraction = Field(description="share of the table's images that may be missing or corrupt")
    allow_copies: bool = Field(description="go on where the same file stands in two parts, or trained the checkpoint")

    @model_validator(mode="after")
    def _check_split(self) -> Self:
        if (self.fold is not None) != (self.split == "kfold") and not (self.fold is not None and self.split == "auto"):
            raise ValueError("data.split=kfold needs data.fold=0, 1, ...; and data.fold goes with it alone")
        if self.fold is not None and self.fold >= self.n_folds:
            raise ValueError(f"data.fold={self.fold}: the last of data.n_folds={self.n_folds} is {self.n_folds - 1}")
        if (self.split == "file") != (self.split_file is not None):
            raise ValueError("data.split=file and data.split_file=PATH go together")
        return self


class SyntheticData(SyntheticConfig, SplitConfig):
    """``data=synthetic``."""


class NIHData(NIHConfig, SplitConfig):
    """``data=nih``."""


class NIHGoogleData(NIHGoogleConfig, SplitConfig):
    """``data=nih_google``."""

    needs_train: ClassVar[bool] = False

    @model_validator(mode="after")
    def _check_own_split(self) -> Self:
        if self.split not in ("auto", "official"):
            raise ValueError(f"data.split={self.split}: nih_google is divided by its table, into val and test: drop it")
        return self


class CheXpertData(CheXpertConfig, SplitConfig):
    """``data=chexpert``."""


class MIMICData(MIMICConfig, SplitConfig):
    """``data=mimic``."""


class PadChestData(PadChestConfig, SplitConfig):
    """``data=padchest``."""


class VinDrData(VinDrConfig, SplitConfig):
    """``data=vindr``."""


class TableData(TableConfig, SplitConfig):
    """``data=table``."""


class SeveralData(SplitConfig):
    """``data=several``: the sources listed in ``sources``, combined into one data set."""

    default_weights: ClassVar[str] = "imagenet"

    source: Literal["several"]
    sources: list[SourceName] = Field(min_length=1, description="which of the sections below")
    nih: NIHConfig
    chexpert: CheXpertConfig
    mimic: MIMICConfig
    padchest: PadChestConfig
    vindr: VinDrConfig
    table: TableConfig

    @model_validator(mode="after")
    def _check_sources(self) -> Self:
        if len(set(self.sources)) < len(self.sources):
            raise ValueError("data.sources names each source once")
        return self

    def chosen(self) -> list["AnySource"]:
        """The sections of the sources in ``sources``."""
        return [getattr(self, name) for name in self.sources]


AnySource = (
    SyntheticConfig
    | NIHConfig
    | NIHGoogleConfig
    | CheXpertConfig
    | MIMICConfig
    | PadChestConfig
    | VinDrConfig
    | TableConfig
)
AnyData = (
    SyntheticData
    | NIHData
    | NIHGoogleData
    | CheXpertData
    | MIMICData
    | PadChestData
    | VinDrData
    | TableData
    | SeveralData
)
DataConfig = Annotated[AnyData, Field(discriminator="source")]
