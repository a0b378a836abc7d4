"""``README.md`` of a bundle: a model card as Hugging Face reads it, every number of it from the bundle's own tables."""

import csv
import html
import io
import json
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from cxrlit.config import Precision
from cxrlit.handoff.bundle import TABLES, BundleConfig
from cxrlit.handoff.ood_check import MAX_ASPECT, MIN_ASPECT, SHARE
from cxrlit.metrics.epoch_metrics import describe_monitor
from cxrlit.metrics.operating_point import OperatingPoint

SUMMARY, LABELS, CONFUSION = TABLES
TEST = "test"

USES = """\
For research on radiographs like those of the training: to compare methods, to study errors, to rank images for reading
by a person who sees all of them."""

MISUSES = (
    "It is not a medical device. No person may be diagnosed, triaged, treated or sent home by what it says.",
    "Not for lateral views, for children where the training had none, for other organs, for photographs of films or "
    "screens. It gives a score to anything; a warning is a hint, and its absence no clearance.",
    "Not at another hospital without a test there: scores, calibration and thresholds shift with scanners, patients "
    "and prevalence. `cxrlit evaluate ckpt=... data=...` measures that before anything rests on them.",
    "A finding that is not among its labels is not looked for. Below every threshold does not mean healthy.",
)

LIMITS = (
    "The targets of the training are what its data set says. Those of NIH ChestX-ray14 were read out of reports by a "
    "program and are wrong for a part of the images; the metrics below are measured against such targets too.",
    "A model may look at a tube, a marker or a scanner's border in place of a finding. Heatmaps show where it looked, "
    "not why, and are coarse: a cell is 32 pixels wide.",
    "Intervals are over patients of the test part. They say how the numbers vary with who was tested, and nothing of "
    "other hospitals, other years or another training.",
)


def write_card(config: BundleConfig, point: OperatingPoint, tables: Mapping[str, bytes], trained: Precision) -> str:
    """The text of the card.

    Args:
        config: Of the bundle.
        point: Its calibration and thresholds.
        tables: The bytes of ``TABLES``, by name.
        trained: The precision of the training.
    """
    summary = next(row for row in _read(tables[SUMMARY]) if row["split"] == TEST)
    data = config.data
    sections = [
        ("", [_front(config, summary), f"# {_escape(config.name)}", _introduce(config)]),
        ("What it is for", [USES]),
        ("What it must not be used for", [_list(MISUSES)]),
        ("Limits", [_list(LIMITS), _say_input_check(config)]),
        ("Training", [_describe_training(config, trained)]),
        ("Data and split", [_describe_data(config)]),
        (
            "Performance",
            [
                f"On the test part of {_escape(data.name)}, split {_escape(data.split_name)} `{data.split_hash}`, with "
                "95 % intervals by bootstrap over patients. Empty: undefined there, with the reason in the CSV.",
                _show_macro(summary),
                _show_labels(_read(tables[LABELS])),
            ],
        ),
        ("Thresholds", [_describe_point(point), _show_confusion(_read(tables[CONFUSION]), point)]),
        ("How to run it", [_say_usage()]),
        ("Versions", [_list(f"{name} {number}" for name, number in config.versions.items())]),
    ]
    pieces = [piece for title, parts in sections for piece in ([f"## {title}", *parts] if title else parts)]
    return "\n\n".join(pieces) + "\n"


def _front(config: BundleConfig, summary: Mapping[str, str]) -> str:
    """The YAML that Hugging Face reads; every JSON text is YAML."""
    metrics = (
        [
            {"type": "roc_auc", "name": "macro AUROC", "value": float(summary["auroc_macro"])},
            {"type": "f1", "name": "macro F1", "value": float(summary["f1_macro"])},
        ]
        if summary["auroc_macro"] and summary["f1_macro"]
        else []
    )
    front = {
        "library_name": "cxrlit",
        "pipeline_tag": "image-classification",
        "tags": ["chest-x-ray", "radiology", "medical", "multi-label-classification", "densenet121"],
        "model-index": [
            {
                "name": config.name,
                "results": [
                    {
                        "task": {"type": "image-classification", "name": "findings in chest radiographs"},
                        "dataset": {"name": config.data.name, "type": config.data.name, "split": TEST},
                        "metrics": metrics,
                    }
                ],
            }
        ],
    }
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in front.items()]
    return "\n".join(["---", *lines, "---"])


def _introduce(config: BundleConfig) -> str:
    names = ", ".join(_escape(label) for label in config.labels)
    size = config.preprocessing.img_size
    return (
        f"**Research use only: not a medical device.** A DenseNet121 that gives each frontal chest radiograph a "
        f"probability for each of {len(config.labels)} findings: {names}. It sees the image at {size} x {size} pixels. "
        f"Made with cxrlit; `config.json` has every setting."
    )


def _say_input_check(config: BundleConfig) -> str:
    check = config.input_check
    rough = (
        "" if check.n_val >= 1 / SHARE else "; by so few images the limits are rough, and it may be several times that"
    )
    return (
        f"An image is warned of where its aspect is outside {MIN_ASPECT} to {MAX_ASPECT}, where it has colour or says "
        f"that its view is lateral, where its grays are more than {check.max_distance:.1f} from those of "
        f"{check.n_train:,} training images, or where "
        f"its correlation with their mean image is below {check.min_correlation:.2f}. At most {100 * SHARE} % of "
        f"{check.n_val:,} validation images are beyond each of the last two limits: of radiographs like them, about "
        f"one in a hundred is warned of in vain{rough}."
    )


def _describe_training(config: BundleConfig, trained: Precision) -> str:
    head = ["phase", "img_size", "batch_size", "lr", "n_unfreeze", "batch_norm", "max_epochs"]
    rows = [
        [f"{record.phase}-{record.id}", *(_show(record.settings, key) for key in head[1:])] for record in config.phases
    ]
    evaluated = "" if config.precision == trained else f", evaluated in {config.precision}"
    epoch = f"epoch {config.epoch}" if config.epoch else "the weights that it started from"
    monitor = _escape(describe_monitor(config.monitor))
    return (
        f"{_table(head, rows)}\n\nOf the last phase, {epoch}: {monitor} {config.score:.3f}. "
        f"Trained in {trained}{evaluated}."
    )


def _show(settings: object, key: str) -> str:
    return "" if settings is None else f"{getattr(settings, key)}"


def _describe_data(config: BundleConfig) -> str:
    data = config.data
    rows = [[name, f"{part.images:,}", f"{part.patients:,}"] for name, part in data.parts.items()]
    return (
        f"{_table(['part', 'images', 'patients'], rows)}\n\n{_escape(data.name)}, divided by patient: no patient is in "
        f"two parts. Split {_escape(data.split_name)}, hash `{data.split_hash}`; fingerprint of the images and targets "
        f"`{data.fingerprint}`. An image that is not square is made so by `{config.preprocessing.resize}`."
    )


def _show_macro(summary: Mapping[str, str]) -> str:
    rows = [
        [name, _value(summary, key), _interval(summary, key)]
        for name, key in (
            ("AUROC, macro", "auroc_macro"),
            ("average precision, macro", "average_precision_macro"),
            ("F1, macro", "f1_macro"),
            ("F1, micro", "f1_micro"),
            ("Brier score, macro", "brier_macro"),
            ("calibration error, macro", "ece_macro"),
        )
    ]
    counts = f"{int(summary['n_images']):,} images of {int(summary['n_patients']):,} patients"
    table = _table(["metric", "value", "95 % interval"], rows)
    return f"{table}\n\n{counts}; the macro AUROC is over {summary['n_labels']} labels."


def _show_labels(rows: Sequence[Mapping[str, str]]) -> str:
    return _table(
        ["label", "AUROC", "95 % interval", "average precision", "positives", "images"],
        [
            [row["label"], _value(row, "auroc"), _interval(row, "auroc"), _value(row, "average_precision"),
             row["positives"], row["images"]]
            for row in rows
            if row["split"] == TEST
        ],
    )  # fmt: skip


def _describe_point(point: OperatingPoint) -> str:
    calibration, thresholds = point.calibration, point.thresholds
    rule = thresholds.rule or "given by hand"
    wanted = f" {thresholds.wanted}" if thresholds.wanted is not None else ""
    how = (
        f"Probabilities are calibrated ({calibration.method}), then held against the threshold; both were fitted on "
        "the validation part"
        if calibration
        else "Probabilities are held against the threshold, which was fixed on the validation part"
    )
    return f"{how} (rule: `{rule}`{wanted}). At or above it a finding is called present. On the test part:"


def _show_confusion(rows: Sequence[Mapping[str, str]], point: OperatingPoint) -> str:
    slopes = dict(zip(point.labels, point.calibration.slope, strict=True)) if point.calibration else {}
    offsets = dict(zip(point.labels, point.calibration.intercept, strict=True)) if point.calibration else {}
    keys = ["TP", "FP", "TN", "FN"]
    rates = ["precision", "recall", "specificity", "F1"]
    made = []
    for row in rows:
        label = row["label"]
        is_fitted = label in slopes and not np.isnan(slopes[label])
        fitted = f"{slopes[label]:.3f}, {offsets[label]:.3f}" if is_fitted else "none"
        counts = [row[key] for key in keys]
        made.append([label, fitted, _value(row, "threshold"), *counts, *(_value(row, key) for key in rates)])
    return _table(["label", "slope, intercept", "threshold", *keys, *rates], made)


def _say_usage() -> str:
    return """\
Check it, then run it; a file is a PNG, a JPEG or a DICOM image of any size, a folder all that is in it:

```console
$ sha256sum -c SHA256SUMS
$ pip install cxrlit        # or: pip install -e . in its repository
$ cxrlit predict . radiographs/ --out preds.csv
```

```python
from cxrlit import Predictor

predictor = Predictor.load(".")
predictions = predictor.predict(["a.png", "b.dcm"])
```

`model.onnx` is the same network for any ONNX runtime: `images` (N, 1, S, S) uint8 in, `logits` (N, L) out; the sigmoid,
the calibration and the thresholds are in `config.json`. Nothing in the bundle is code, and loading it runs none."""


def _read(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode("utf-8"))))


def _value(row: Mapping[str, str], key: str) -> str:
    return f"{float(row[key]):.3f}" if row[key] else ""


def _interval(row: Mapping[str, str], key: str) -> str:
    low, high = row[f"{key}_low"], row[f"{key}_high"]
    return f"{float(low):.3f} to {float(high):.3f}" if low and high else ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([_escape(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _list(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def _escape(text: str) -> str:
    """A name as text: nothing in it is markup.

    >>> _escape("a|<b>")
    'a&#124;&lt;b&gt;'
    """
    return html.escape(text, quote=False).replace("|", "&#124;").replace("`", "&#96;").replace("\n", " ")
