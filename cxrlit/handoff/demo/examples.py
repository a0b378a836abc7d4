"""Radiographs to try the page with, drawn by cxrlit itself: nobody's data are in them."""

from itertools import count
from pathlib import Path
from typing import NamedTuple

import cv2

from cxrlit.data.synthetic.drawn_set import sample_patient
from cxrlit.data.synthetic.radiograph import draw_radiograph

FINDINGS = ("", "Cardiomegaly", "Effusion", "Pneumothorax")
"""What each of them shows, and nothing beside."""

SEED = 2026
"""Of patients that the synthetic set, whose seed is 0 unless it is told otherwise, does not hold."""

SIDE = 512


class Example(NamedTuple):
    """A drawn radiograph.

    Attributes:
        caption: What was drawn.
        path: PNG file.
    """

    caption: str
    path: Path


def draw_examples(folder: Path) -> list[Example]:
    """Draw a radiograph of each of ``FINDINGS``, the same ones each time.

    Args:
        folder: Where the files go.
    """
    return [_draw(finding, folder) for finding in FINDINGS]


def _draw(finding: str, folder: Path) -> Example:
    """The first image of the first patient who has that finding alone, standing."""
    for number in count(1):
        patient = sample_patient(SEED, number)
        visit = patient.visits[0]
        if visit.view == "PA" and [lesion.label for lesion in visit.lesions] == [finding][: bool(finding)]:
            break
    image, _ = draw_radiograph(patient.anatomy, visit.lesions, visit.exposure, SIDE)
    path = folder / f"{finding or 'healthy'}.png"
    _, content = cv2.imencode(".png", image)
    path.write_bytes(content.tobytes())
    return Example(f"Drawn with {finding.lower()}" if finding else "Drawn without a finding", path)
