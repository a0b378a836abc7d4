"""Example radiographs for the page, drawn by cxrlit: they contain no patient data."""

from functools import cache
from itertools import count
from typing import NamedTuple

import cv2

from cxrlit.data.synthetic.drawn_set import sample_patient
from cxrlit.data.synthetic.radiograph import draw_radiograph

FINDINGS = ("", "Cardiomegaly", "Effusion", "Pneumothorax")
"""The only finding of each example."""

SEED = 2026
"""A seed whose patients are not in the default synthetic set."""

SIDE, JPEG_QUALITY = 512, 90
"""Side in pixels, and JPEG quality at which the four examples add 170 kB to the page."""


class Example(NamedTuple):
    """A drawn radiograph.

    Attributes:
        caption: The drawn finding.
        content: Bytes of the JPEG file.
    """

    caption: str
    content: bytes


@cache
def draw_examples() -> tuple[Example, ...]:
    """Draw a radiograph of each of ``FINDINGS``, the same each time."""
    return tuple(map(_draw, FINDINGS))


def _draw(finding: str) -> Example:
    """Draw the first standing image of the first patient with only this finding."""
    for number in count(1):
        patient = sample_patient(SEED, number)
        visit = patient.visits[0]
        if visit.view == "PA" and [lesion.label for lesion in visit.lesions] == [finding][: bool(finding)]:
            break
    image, _ = draw_radiograph(patient.anatomy, visit.lesions, visit.exposure, SIDE)
    _, content = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return Example(f"Drawn with {finding.lower()}" if finding else "Drawn without a finding", content.tobytes())
