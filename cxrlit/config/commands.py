"""Keys of ``cxrlit prepare``, ``inspect``, ``compare`` and ``export``."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from cxrlit.config.data import DataConfig
from cxrlit.config.evaluate import CheckpointPath, InternalData, check_members
from cxrlit.config.train import AugmentConfig
from cxrlit.config.types import TTA, ConfigSection, Folder, ImageSize, LabelName, Labels, Seed


class PrepareConfig(ConfigSection):
    """Keys of ``cxrlit prepare``."""

    command = "prepare"

    labels: Labels
    data: DataConfig
    cache_dir: Folder = Field(description="folder of decoded images and of the synthetic data")
    sizes: list[ImageSize] = Field(min_length=1, description="sides of the square images, pixels")
    tta: TTA = Field(description="test-time augmentation that is to come; crops: 8 / 7 of each size are prepared, too")
    num_workers: int | None = Field(ge=1, le=256, description="threads that decode; null: one for each core")


class InspectConfig(ConfigSection):
    """Keys of ``cxrlit inspect``."""

    command = "inspect"

    labels: Labels
    data: DataConfig
    cache_dir: Folder = Field(description="folder of decoded images and of the synthetic data")
    augment: AugmentConfig
    out: Folder = Field(description="the HTML page to write")
    n_sample: int = Field(ge=1, le=1_000_000, description="images read for sizes, modes and pixel statistics")
    seed: Seed = Field(description="which images are sampled and shown, and how they are augmented")
    num_workers: int | None = Field(ge=1, le=256, description="threads that decode; null: one for each core")


def _check_once(labels: list[str]) -> list[str]:
    if len(set(labels)) < len(labels):
        raise ValueError("must_improve names each label once")
    return labels


class CompareThresholds(ConfigSection):
    """Threshold files that replace those beside the predictions."""

    baseline: Folder | None = Field(description="thresholds.json of the baseline; null: the one beside it")
    candidate: Folder | None = Field(description="thresholds.json of the candidate; null: the one beside it")


class CompareConfig(ConfigSection):
    """Keys of ``cxrlit compare``: the two models, and the requirements on the candidate."""

    command = "compare"

    baseline: str = Field(min_length=1, description="phase folder, folder of an evaluation, or file of predictions")
    candidate: str = Field(min_length=1, description="the same of the model that is asked about")
    split: str = Field(pattern=r"^\w[\w.-]*$", description="of folders: which predictions, such as test or val")
    thresholds: CompareThresholds
    metric: Literal["auroc", "f1"] = Field(description="what the question is about")
    must_improve: Annotated[
        list[LabelName], AfterValidator(_check_once), Field(description="labels that must each improve")
    ]
    margin: float = Field(ge=0, lt=1, description="how far any other label may fall and not be harmed")
    macro_must_rise: bool = Field(description="whether the macro must")
    n_replicates: int = Field(ge=100, le=100_000, description="resamples of the patient bootstrap")
    seed: Seed = Field(description="of the resamples")
    out: Folder | None = Field(description="folder of the results; null: comparison/<baseline>/ beside the candidate's")


MAX_MEMBERS = 10
"""Maximum number of models in a bundle. Each takes 56 MB of disk and memory."""


class ExportConfig(ConfigSection):
    """Keys of ``cxrlit export``."""

    command = "export"

    ckpt: Annotated[list[CheckpointPath], AfterValidator(check_members)] = Field(
        min_length=1,
        max_length=MAX_MEMBERS,
        description="a checkpoint or a phase folder, or the members of an ensemble",
    )
    out: Folder = Field(description="folder of the bundle, which does not exist yet")
    evaluation: Folder | None = Field(
        description="folder of the evaluation, which also fixes tta and average; null: where evaluate.py puts it"
    )
    license: str = Field(
        pattern=r"^[a-z0-9][a-z0-9.-]*$",
        max_length=60,
        description="licence of the weights in the model card, by its id on Hugging Face, such as cc-by-nc-4.0",
    )
    data: InternalData
    cache_dir: Folder = Field(description="folder of decoded images and of the synthetic data")
    int8: bool = Field(description="also quantise to int8, which is in the bundle if it passes its gate")
    max_auroc_loss: float = Field(ge=0, le=1, description="most AUROC that a label may lose by int8")
    force: bool = Field(description="take int8 although no label has enough cases to judge its AUROC by")
