"""Keys of ``python evaluate.py``."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from cxrlit.config.data import AnyData, NIHGoogleData
from cxrlit.config.train import MachineConfig
from cxrlit.config.types import (
    TTA,
    Average,
    BatchSize,
    ConfigSection,
    Folder,
    ImageSize,
    LabelName,
    Labels,
    Loggers,
    Normalization,
    Seed,
    SeenName,
)


def _list_one(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Scores = Literal["probs", "logits", "percent"]
CheckpointPath = Annotated[str, Field(min_length=1)]


def check_members(paths: list[str]) -> list[str]:
    """Return the checkpoints of an ensemble if all differ.

    Raises:
        ValueError: A checkpoint is listed twice.
    """
    twice = next((path for path in paths if paths.count(path) > 1), None)
    if twice is not None:
        raise ValueError(f"ckpt names {twice} twice: name each checkpoint once")
    return paths


ColumnName = Annotated[str, Field(min_length=1)]
ColumnNames = Annotated[list[ColumnName], BeforeValidator(_list_one)]
"""One name or a list of names; each table must have exactly one of them."""


class InternalData(ConfigSection):
    """``data=internal``: the training's own data, and changes to where and how they are read."""

    source: Literal["internal"]
    root: Folder | None = Field(description="where the images are now, if they have moved since training")
    roots: dict[str, Folder] | None = Field(description="the same for several data sets, by source")
    store: str | None = Field(description="address of prepared images to read in place of the files")
    follow_links: bool | None = Field(description="read files that are links out of root; null: as during training")
    allow_copies: bool | None = Field(description="go on where a file stands in two parts; null: as during training")


class PredictionColumnsConfig(ConfigSection):
    """Column names in either of the two tables; null: the column of the key's own name; []: not read."""

    image: ColumnNames | None = Field(description="name of the image, in both tables")
    patient: ColumnNames | None
    split: ColumnNames | None = Field(description="train, val or test; without such a column every row is test")
    view: ColumnNames | None
    age: ColumnNames | None = Field(description="years")
    sex: ColumnNames | None
    probs: dict[str, ColumnName] | None = Field(
        description="the column of each label's scores; null: prob_<label>, or <label>"
    )
    targets: dict[str, ColumnName] | None = Field(
        description="the column of each label's targets; null: target_<label>, or in targets=FILE <label>"
    )


class PredictionsConfig(ConfigSection):
    """Keys of a table of predictions."""

    columns: PredictionColumnsConfig
    patient: Literal["image"] | None = Field(
        description="image: every image is a patient of its own, where no table tells patients apart"
    )
    scores: Scores = Field(description="what the scores are: probs in [0, 1], logits, or percent")
    missing: Literal["error", "drop"] = Field(description="what is done where an image of a part is not predicted")


class PredictingConfig(MachineConfig):
    """Device, precision and batch size of the prediction."""

    precision: Literal["auto", "bf16", "fp32"] = Field(description="auto: bf16 where the device computes in it")
    batch_size: BatchSize | None = Field(
        default=None, description="images at once, over all devices; null: as in training, on a GPU by its free memory"
    )
    compile: bool = Field(default=False, description="torch.compile the network")


ChannelValues = list[Annotated[float, Field(ge=0, le=1)]]


class WeightsConfig(ConfigSection):
    """Properties of another project's weights that neither the file nor its name tells."""

    labels: Labels | None = Field(
        description="which labels are evaluated; null: all that both the weights' head and the data have"
    )
    img_size: ImageSize | None = Field(description="side of their images, pixels")
    normalize: Literal["auto"] | Normalization = Field(description="mean and std after scaling to [0, 1], by name")
    mean: ChannelValues | None = Field(description="mean in place of normalize, one number or three")
    std: ChannelValues | None = Field(description="std in place of normalize, one number or three")
    weights_labels: list[LabelName] | None = Field(description="labels of their head, in order")
    weights_saw: list[SeenName] | None = Field(
        description="data sets that they were trained on, such as [nih]; []: none of ours"
    )
    allow_seen: bool = Field(description="evaluate although they saw the test images: every number says so beside it")

    @field_validator("labels", mode="before")
    @classmethod
    def _check_labels(cls, labels: Any) -> Any:
        if isinstance(labels, str):
            raise ValueError(
                f"labels={labels}: labels of weights=FILE are a list, labels=[Mass]; a table of targets is targets=FILE"
            )
        return labels

    @model_validator(mode="after")
    def _check_mean(self) -> Self:
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std go together, in place of normalize: mean=[0.5] std=[0.25]")
        for key in ("mean", "std"):
            values = getattr(self, key)
            if values is not None and len(values) not in (1, 3):
                raise ValueError(f"{key}={values}: it has one number, or one for each of the three channels")
        if self.std is not None and min(self.std) == 0:
            raise ValueError(f"std={self.std}: it must be above 0")
        if self.mean is not None and self.normalize != "auto":
            raise ValueError(
                f"normalize={self.normalize} and mean both say how images are normalized: drop one of them"
            )
        return self


class EvaluateConfig(PredictionsConfig, WeightsConfig):
    """Keys of an evaluation: model, data and measurements.

    A key that the user typed without effect is an error. A default of ``conf/`` without effect is ignored.
    """

    command = "evaluate"

    ckpt: Annotated[list[CheckpointPath] | None, BeforeValidator(_list_one)] = Field(
        description="a checkpoint or a phase folder, or several"
    )
    weights: str | None = Field(
        min_length=1, description="a DenseNet121 of another project, in place of ckpt: a file, or xrv:NAME"
    )
    average: Average = Field(description="what the mean over checkpoints and over tta is of")
    tta: TTA = Field(description="test-time augmentation: which views of an image are predicted")

    predictions: Folder | None = Field(description="CSV, TSV or Parquet, in place of ckpt")
    targets: Folder | None = Field(description="table of targets, patients and split for predictions")

    data: Annotated[InternalData | AnyData, Field(discriminator="source")]
    part: Literal["all", "train", "val", "test"] | None = Field(
        description="of other data: which images; null: all, of nih_google test"
    )
    recalibrate: bool = Field(description="fit calibration and thresholds on a share of the other patients too")
    recalibrate_fraction: float = Field(gt=0, lt=1, description="that share")

    calibration: Literal["platt", "temperature", "none"]
    threshold_rule: Literal["f1_grid", "f1_quantiles", "youden", "sensitivity", "specificity"]
    min_rate: float | None = Field(
        gt=0, le=1, description="the sensitivity or specificity to reach on validation, for those rules alone"
    )
    thresholds: Folder | None = Field(description="thresholds.json to use as it is")

    baseline: Folder | None = Field(description="phase folder or evaluation on the same split to compare with")
    subgroups: list[Literal["sex", "age", "view"]] = Field(description="attributes whose groups are measured apart")
    age_bands: list[Annotated[int, Field(gt=0, lt=120)]] = Field(description="years at which the next band begins")
    localise: Literal["none", "gradcam", "gradcam++"] = Field(description="heatmaps")
    n_replicates: int = Field(ge=100, le=100_000, description="resamples of the patient bootstrap")
    seed: Seed = Field(description="of the resamples, and of the share of recalibrate")
    report: bool = Field(description="write report.html and its pictures")
    logger: Loggers
    log_images: bool = Field(description="send loggers what shows patients, too: heatmaps, and the report with them")

    out: Folder | None = Field(description="folder of the results; null: eval/ beside the checkpoint")
    cache_dir: Folder = Field(description="folder of decoded images and of the synthetic data")
    trainer: PredictingConfig

    @property
    def is_external(self) -> bool:
        """Whether a checkpoint is evaluated on data other than its own."""
        return self.ckpt is not None and not isinstance(self.data, InternalData)

    @property
    def is_mean(self) -> bool:
        """Whether the probs are a mean over several checkpoints or views."""
        return self.predictions is None and (len(self.ckpt or ()) > 1 or self.tta != "none")

    @property
    def takes_rate(self) -> bool:
        """Whether the threshold rule targets a sensitivity or specificity."""
        return self.threshold_rule in ("sensitivity", "specificity")

    @model_validator(mode="after")
    def _check_subject(self, info: ValidationInfo) -> Self:
        typed = self._list_typed(info)
        given = [key for key in ("ckpt", "weights", "predictions") if getattr(self, key) not in (None, [])]
        if len(given) != 1:
            both = f"{given[0]} and {given[1]} contradict: " if given else ""
            raise ValueError(f"{both}say what to evaluate: ckpt=PATH, weights=FILE or predictions=FILE, one of them")
        if self.predictions is None:
            of_tables = [key for key in ("targets", "patient", "scores", "missing", "columns") if key in typed]
            if of_tables:
                raise ValueError(f"{of_tables[0]} goes with predictions=FILE; the data of {given[0]} are data=...")
        if self.weights is None:
            of_weights = [key for key in WeightsConfig.model_fields if key in typed]
            if of_weights:
                tables = "; a table of targets is targets=FILE" if of_weights[0] == "labels" else ""
                raise ValueError(f"{of_weights[0]} goes with weights=FILE{tables}")
        elif isinstance(self.data, InternalData):
            raise ValueError("weights=FILE needs data to evaluate on: add data=nih data.root=PATH, or which it is")
        if self.ckpt is not None:
            check_members(self.ckpt)
        if "average" in typed and not self.is_mean:
            raise ValueError(
                "average goes with several checkpoints, or with tta=flip or crops: there is nothing to average"
            )
        if self.predictions is not None:
            if "tta" in typed and self.tta != "none":
                raise ValueError("tta goes with ckpt=PATH or weights=FILE: predictions are made already")
            if isinstance(self.data, InternalData):
                if "data" in typed and (self.data.root or self.data.roots or self.data.store):
                    raise ValueError("data.root goes with a data set: add data=nih, or which it is")
            elif "data" in typed and self.targets is not None:
                raise ValueError("targets and data both say where the targets are: drop one of them")
        return self

    @model_validator(mode="after")
    def _check_other_data(self, info: ValidationInfo) -> Self:
        typed = self._list_typed(info)
        if "part" in typed and not self.is_external:
            raise ValueError("part goes with other data for a checkpoint: ckpt=PATH data=nih, or which it is")
        if "recalibrate" in typed and not self.is_external:
            raise ValueError("recalibrate goes with a checkpoint on other data: data=nih, or which it is")
        if "baseline" in typed and self.is_external:
            raise ValueError("baseline: on other data the home test is what is compared with: drop it")
        return self

    @model_validator(mode="after")
    def _check_rule(self, info: ValidationInfo) -> Self:
        typed, rule = self._list_typed(info), self.threshold_rule
        if self.takes_rate and self.min_rate is None:
            raise ValueError(f"threshold_rule={rule} needs min_rate=0.9: the {rule} to reach on validation")
        if "min_rate" in typed and not self.takes_rate:
            raise ValueError(f"min_rate={self.min_rate} goes with threshold_rule=sensitivity or specificity")
        if self.thresholds is not None and not (self.recalibrate and self.is_external):
            fitted = [key for key in ("calibration", "threshold_rule", "min_rate") if key in typed]
            if fitted:
                what = f"{fitted[0]}={getattr(self, fitted[0])}"
                raise ValueError(f"{what} and thresholds=FILE, which holds both, contradict: drop one of them")
        if sorted(set(self.age_bands)) != self.age_bands or len(set(self.subgroups)) < len(self.subgroups):
            raise ValueError("age_bands rises from band to band, and subgroups names each attribute once")
        return self

    def settle(self) -> Self:
        """A copy without the defaults that have no effect."""
        unused: dict[str, Any] = {}
        if not self.is_mean:
            unused["average"] = "probs"
        if not self.takes_rate:
            unused["min_rate"] = None
        if self.is_external:
            unused["baseline"] = None
        if self.part is None:
            unused["part"] = "test" if isinstance(self.data, NIHGoogleData) else "all"
        return self.model_copy(update=unused)

    def _list_typed(self, info: ValidationInfo) -> set[str]:
        """Keys that the user typed with a value other than null or false."""
        return {key for key in info.context or () if getattr(self, key, None) not in (None, False)}
