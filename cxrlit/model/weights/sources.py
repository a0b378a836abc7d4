"""Known weights: normalization of their images, licence, and training data."""

import re
from dataclasses import dataclass, replace

from cxrlit.config import Normalization

NORMALIZE: dict[Normalization, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "unit": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "jfhealthcare": ((128 / 255,) * 3, (64 / 255,) * 3),
    "medical_mae": ((0.5056,) * 3, (0.252,) * 3),
}
"""Mean and standard deviation of each channel, after scaling to [0, 1].

Source of ``imagenet``: the transforms that torchvision states for its ImageNet weights; of the others: the configs of
the programs in ``KNOWN``.
"""

XRV_SCALE = 1024.0
"""torchxrayvision's pixels are in [-1024, 1024], those of ``half`` in [-1, 1]."""

NIH_LABELS = (
    "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax",
    "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia",
)  # fmt: skip
"""The 14 findings in the order of the CheXNet replications."""

NIH_OFFICIAL_TRAIN = "nih_train"
"""NIH's official training part, without its test images."""


@dataclass(frozen=True)
class KnownWeights:
    """Weights whose origin is known.

    Attributes:
        name: Name in the table of known weights.
        normalize: Normalization of the training images.
        licence: Stated licence of code and weights.
        trained_on: Training data, in words.
        saw: Data sets whose images they saw, including test images, by their names in ``data=``; ``nih_train``: only
            NIH's official training part.
        files: Regular expression of their file names.
        labels: Labels of their head, in order, if it is a linear layer on pooled features; empty: unknown.
        img_size: Side of the training images, pixels.
        is_guess: Whether they were identified only by a format that other programs write too. A guess proposes a
            normalization, and says nothing about data seen or labels.
    """

    name: str
    normalize: Normalization
    licence: str
    trained_on: str
    saw: tuple[str, ...] = ()
    files: str = ""
    labels: tuple[str, ...] = ()
    img_size: int = 224
    is_guess: bool = False


_XRV = "code Apache-2.0; the terms of the data sets"
_XRV_FILE = r"-densenet121-d121-tw-lr001-rot45-tr15-sc15-seed0-best\.pt"

KNOWN = (
    KnownWeights("imagenet", "imagenet", "BSD-3-Clause", "ImageNet"),
    KnownWeights(
        "xrv:all", "half", _XRV, "NIH, PadChest, CheXpert, MIMIC-CXR, Google's NIH labels, OpenI, RSNA",
        ("nih", "padchest", "chexpert", "mimic"), "nih-pc-chex-mimic_ch-google-openi-kaggle" + _XRV_FILE,
    ),
    KnownWeights("xrv:nih", "half", _XRV, "NIH", ("nih",), "nih" + _XRV_FILE),
    KnownWeights("xrv:rsna", "half", _XRV, "RSNA, which are images of NIH", ("nih",), "kaggle" + _XRV_FILE),
    KnownWeights("xrv:pc", "half", _XRV, "PadChest", ("padchest",), "pc" + _XRV_FILE),
    KnownWeights("xrv:chex", "half", _XRV, "CheXpert", ("chexpert",), "chex" + _XRV_FILE),
    KnownWeights("xrv:mimic_nb", "half", _XRV, "MIMIC-CXR", ("mimic",), "mimic_nb" + _XRV_FILE),
    KnownWeights("xrv:mimic_ch", "half", _XRV, "MIMIC-CXR", ("mimic",), "mimic_ch" + _XRV_FILE),
    KnownWeights("timm:densenet121.ra_in1k", "imagenet", "Apache-2.0", "ImageNet"),
    KnownWeights("timm:densenet121.tv_in1k", "imagenet", "Apache-2.0", "ImageNet"),
    KnownWeights("jfhealthcare", "jfhealthcare", "Apache-2.0", "CheXpert", ("chexpert",), img_size=512),
    KnownWeights("Stanford CheXpert", "imagenet", "by registration", "CheXpert", ("chexpert",), img_size=320),
    KnownWeights("RadImageNet", "half", "MIT", "CT, MR and ultrasound"),
    KnownWeights(
        "Medical MAE", "medical_mae", "none stated", "NIH and CheXpert, without labels",
        ("nih", "chexpert"), r"densenet121_CXR_0\.3M_(mae|mocov2)\.pth(\.tar)?",
    ),
    KnownWeights(
        "EVA-X, fine-tuned", "medical_mae", "MIT", "NIH, official training part, after Medical MAE",
        (NIH_OFFICIAL_TRAIN, "chexpert"), r"densenet121_(medical_mae|mocov2)_pt_cxr14_ft\.pth", NIH_LABELS,
    ),
    KnownWeights("CheXNet (arnoweng, zoogzog)", "imagenet", "none stated", "NIH, a split of their own",
                 ("nih",), r"m-25012018-123527\.pth\.tar", NIH_LABELS),
    KnownWeights("jrzech/reproduce-chexnet", "imagenet", "none stated", "NIH, a split of its own",
                 ("nih",), labels=NIH_LABELS),
)  # fmt: skip
"""Source: their repositories and papers; of their files, only the formats were checked."""

BY_NAME = {known.name: known for known in KNOWN}


def identify(file_name: str, keys: set[str], prefix: str, wrapper: str, class_name: str) -> KnownWeights | None:
    """Identify known weights by file name, tensor names, or pickled class.

    Args:
        file_name: Name of the file.
        keys: Names of the tensors that are not features.
        prefix: Prefix of the features' names.
        wrapper: The keys above the state dict.
        class_name: Class of a pickled module, else empty.

    Returns:
        The known weights, marked as a guess unless the file name matches; None if unknown.

    >>> identify("m.pth.tar", {"module.densenet121.classifier.0.weight"}, "module.densenet121.features.",
    ...          "state_dict", "").name
    'CheXNet (arnoweng, zoogzog)'
    """
    by_file = next((known for known in KNOWN if known.files and re.fullmatch(known.files, file_name)), None)
    if by_file is not None:
        return by_file
    name = _guess(keys, prefix, wrapper, class_name)
    return None if name is None else replace(BY_NAME[name], is_guess=True)


def _guess(keys: set[str], prefix: str, wrapper: str, class_name: str) -> str | None:
    if any(".attention_map." in f".{key}" for key in keys) and "backbone." in prefix:
        return "jfhealthcare"
    if prefix.endswith("backbone.0."):
        return "RadImageNet"
    if wrapper == "model_state" and prefix.endswith("model.features."):
        return "Stanford CheXpert"
    if "module.densenet121.classifier.0.weight" in keys:
        return "CheXNet (arnoweng, zoogzog)"
    if wrapper == "model" and class_name == "torchvision.models.densenet.DenseNet":
        return "jrzech/reproduce-chexnet"
    return None


def tabulate_known() -> str:
    """The table of the known weights, in Markdown."""
    rows = [
        f"| {known.name} | `{known.normalize}` | {known.img_size} | {known.licence} | {known.trained_on} | "
        f"{'yes' if 'nih' in known.saw else 'no'} |"
        for known in KNOWN
    ]
    return "\n".join(
        [
            "| weights | normalize | px | licence | trained on | saw NIH's test images |",
            "| --- | --- | --- | --- | --- | --- |",
            *rows,
        ]
    )
