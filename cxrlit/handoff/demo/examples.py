"""Radiographs to try the page with, drawn by cxrlit itself: nobody's data are in them."""

from functools import cache
from itertools import count
from typing import NamedTuple

import cv2

from cxrlit.data.synthetic.drawn_set import sample_patient
from cxrlit.data.synthetic.radiograph import draw_radiograph

FINDINGS = ("", "Cardiomegaly", "Effusion", "Pneumothorax")
"""What each of them shows, and nothing beside."""

SEED = 2026
"""A seed whose patients are not in the default synthetic set."""

SIDE, JPEG_QUALITY = 512, 90
"""Pixels, and a quality at which the four add 170 kB to the page."""


class Example(NamedTuple):
    """A drawn radiograph.

    Attributes:
        caption: What was drawn.
        content: JPEG file.
    """

    caption: str
    content: bytes


@cache
def draw_examples() -> tuple[Example, ...]:
    """Draw a radiograph of each of ``FINDINGS``, the same ones each time."""
    return tuple(map(_draw, FINDINGS))


def _draw(finding: str) -> Example:
    """The first image of the first patient who has that finding alone, standing."""
    for number in count(1):
        patient = sample_patient(SEED, number)
        visit = patient.visits[0]
        if visit.view == "PA" and [lesion.label for lesion in visit.lesions] == [finding][: bool(finding)]:
            break
    image, _ = draw_radiograph(patient.anatomy, visit.lesions, visit.exposure, SIDE)
    _, content = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return Example(f"Drawn with {finding.lower()}" if finding else "Drawn without a finding", content.tobytes())
