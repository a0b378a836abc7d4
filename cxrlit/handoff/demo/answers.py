"""The JSON of the service: its models, and a prediction as one of them."""

import io
from typing import Annotated, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, Field

from cxrlit.core.notice import RESEARCH_USE
from cxrlit.evaluation.localisation.overlays import color_heatmap, enlarge
from cxrlit.handoff.backends.backend import Precision
from cxrlit.handoff.bundle import Bundle
from cxrlit.handoff.predictor import Prediction, Predictor, count_digits
from cxrlit.html.figures import embed

Prob = Annotated[float, Field(ge=0, le=1)]


class Finding(BaseModel):
    """A label, and whether the model finds it in the image."""

    label: str
    prob: Prob = Field(description="Raw: the sigmoid of the model's logit.")
    calibrated: Prob = Field(description="Calibrated probability; the decision compares it with the threshold.")
    threshold: float | None = Field(description="Fixed on validation data; null: the label has no threshold.")
    threshold_prob: float | None = Field(
        description="The same threshold of the raw `prob`: prob >= threshold_prob is the same decision."
    )
    present: bool | None = Field(description="calibrated >= threshold; null: the label has no threshold.")
    digits: int = Field(description="Decimals at which calibrated and threshold look different, 3 to 6.")
    heatmap: str | None = Field(
        description="Grad-CAM as a data URI: a PNG with transparency, to lay over `image`, of the same size. Bright is "
        "what speaks most for the label, whether it is present or not. null: no positive evidence, or pictures=false."
    )


class Answer(BaseModel):
    """A prediction for one file."""

    model: str = Field(description="Name of the model.")
    bundle: str = Field(description="SHA-256 over the files of its bundle.")
    precision: Precision = Field(description="In which the networks computed: fp32, bf16 or int8.")
    notice: Literal["Research use only: not a medical device."]
    warnings: list[str] = Field(description="Why the image may differ from those that the model was trained on.")
    findings: list[Finding] = Field(description="In the order of the model's labels.")
    image: str | None = Field(description="What the model was given: a gray PNG as a data URI; null: pictures=false.")


class Health(BaseModel):
    """The service answers, with this model."""

    status: Literal["ok"]
    model: str = Field(description="Name of the model.")
    bundle: str = Field(description="SHA-256 over the files of its bundle.")
    predicted: str = Field(description="How a prob comes about: the mean over which networks and views of the image.")
    labels: list[str] = Field(description="What it can find.")
    waiting: int = Field(description="Files that are coming in or wait for their prediction.")


class Refusal(BaseModel):
    """No prediction."""

    error: str = Field(description="What is wrong, in one line.")


def make_health(bundle: Bundle, n_waiting: int) -> Health:
    """Make the answer of ``/health``."""
    return Health(
        status="ok",
        model=bundle.config.name,
        bundle=bundle.digest,
        predicted=bundle.config.predicted,
        labels=list(bundle.labels),
        waiting=n_waiting,
    )


def make_answer(predictor: Predictor, prediction: Prediction) -> Answer:
    """Make the answer for a usable prediction.

    Args:
        predictor: Predictor of the bundle.
        prediction: A prediction without ``reason``; without heatmaps, the answer has no pictures.
    """
    with_pictures = bool(prediction.heatmaps)
    return Answer(
        model=predictor.bundle.config.name,
        bundle=predictor.bundle.digest,
        precision=predictor.backend.precision,
        notice=RESEARCH_USE,
        warnings=list(prediction.warnings),
        findings=_make_findings(prediction, predictor),
        image=embed(_encode_gray(prediction.image)) if with_pictures and prediction.image is not None else None,
    )


def _make_findings(prediction: Prediction, predictor: Predictor) -> list[Finding]:
    findings, thresholds = [], predictor.thresholds
    for label, calibrated in prediction.calibrated.items():
        heatmap = prediction.heatmaps.get(label)
        assert prediction.image is not None
        side = len(prediction.image)
        findings.append(
            Finding(
                label=label,
                prob=prediction.probs[label],
                calibrated=calibrated,
                threshold=thresholds[label],
                threshold_prob=predictor.threshold_probs[label],
                present=prediction.preds[label],
                digits=count_digits(calibrated, thresholds[label]),
                heatmap=None if heatmap is None or not heatmap.any() else embed(encode_heatmap(heatmap, side)),
            )
        )
    return findings


def encode_heatmap(heatmap: NDArray[np.float32], side: int) -> bytes:
    """Encode a heatmap (h, w) in [0, 1] as a PNG (side, side) in the colours of ``overlay``; 0 is transparent."""
    colors = np.rint(255 * color_heatmap(np.linspace(0, 1, 256, dtype=np.float32)[None])[0]).astype(np.uint8)
    picture = Image.fromarray(np.rint(255 * enlarge(heatmap, side)).astype(np.uint8))
    picture.putpalette(colors[:, :3].tobytes())
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", transparency=colors[:, 3].tobytes())
    return buffer.getvalue()


def _encode_gray(image: NDArray[np.uint8]) -> bytes:
    _, content = cv2.imencode(".png", image)
    return content.tobytes()
