"""Render one radiograph: position chest and findings on the film, expose and scan it."""

from collections.abc import Sequence
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from cxrlit.data.synthetic.anatomy import Anatomy, Exposure, Lesion
from cxrlit.data.synthetic.chest import Chest, draw_skeleton
from cxrlit.data.synthetic.findings import DRAW
from cxrlit.data.synthetic.primitives import Field, as_field

Box = tuple[float, float, float, float]
"""x, y, width, height of a finding, as fractions of the image's side."""


def draw_radiograph(
    anatomy: Anatomy, lesions: Sequence[Lesion], exposure: Exposure, image_px: int
) -> tuple[npt.NDArray[np.uint8], list[Box | None]]:
    """Draw one radiograph, with a box around each finding.

    Attenuations add up along the ray, so that ribs show through the lungs and little is visible below the diaphragm,
    as on film.

    Args:
        anatomy: The patient.
        lesions: Findings of the patient, in drawing order.
        exposure: Exposure of the image.
        image_px: Side of the square image, in pixels.

    Returns:
        (S, S) uint8, dense is bright; and a box for each lesion, None if it is outside the image.
    """
    chest = Chest(anatomy, exposure, lesions, image_px)
    film = chest.attenuation()
    masks = []
    for lesion in lesions:
        change, mask = DRAW[lesion.label](chest, lesion, np.random.default_rng(lesion.seed))
        film = film + change
        masks.append(mask)
    film = film + draw_skeleton(anatomy, image_px, exposure.portable)

    centre = (image_px - 1) / 2
    matrix = cv2.getRotationMatrix2D((centre, centre), exposure.rotation, exposure.scale)
    matrix[:, 2] += np.asarray(exposure.shift) * image_px

    def position(field: Field, border: int) -> Field:
        return as_field(cv2.warpAffine(field, matrix, (image_px, image_px), flags=cv2.INTER_LINEAR, borderMode=border))

    # The body continues beyond the film's edge; a finding does not.
    boxes = [_bounding_box(position(mask, cv2.BORDER_CONSTANT)) for mask in masks]
    return _expose(position(film, cv2.BORDER_REPLICATE), exposure), boxes


def _bounding_box(mask: Field) -> Box | None:
    """The box around the part of a mask with at least half of its maximum."""
    strong = mask > 0.5 * float(mask.max(initial=0)) + 1e-3
    if not strong.any():
        return None
    columns, rows = np.flatnonzero(strong.any(axis=0)), np.flatnonzero(strong.any(axis=1))
    side = mask.shape[0]
    left, top = int(columns[0]), int(rows[0])
    return left / side, top / side, (int(columns[-1]) + 1 - left) / side, (int(rows[-1]) + 1 - top) / side


def _expose(film: Field, exposure: Exposure) -> npt.NDArray[np.uint8]:
    """Turn attenuation into gray values: hardware on the skin, film curve, fog, noise, 8 bits."""
    rng = np.random.default_rng(exposure.seed)
    px = film.shape[0]
    film = film + _draw_hardware(exposure, rng, px)
    bright = 1 - np.exp(-1.5 * exposure.gain * np.clip(film, 0, None) ** exposure.gamma)
    bright = exposure.fog + (1 - exposure.fog) * bright
    fine = cv2.GaussianBlur(rng.standard_normal((px, px), dtype=np.float32), (0, 0), 0.8)
    bright = bright + 2 * exposure.noise * fine
    # Vignette of the scanner: a slow gradient over the plate.
    slope = rng.normal(0, 0.05, 2)
    line = np.linspace(-0.5, 0.5, px)
    bright = bright * (1 + slope[0] * line[None, :] + slope[1] * line[:, None])
    return cast(npt.NDArray[np.uint8], np.clip(np.round(bright * 255), 0, 255).astype(np.uint8))


def _draw_hardware(exposure: Exposure, rng: np.random.Generator, px: int) -> Field:
    """Draw side marker, electrodes with wires, a tube, a pacemaker; all are opaque."""
    canvas = np.zeros((px, px), dtype=np.uint8)

    def pixels(points: npt.ArrayLike) -> npt.NDArray[np.int32]:
        return np.round(np.asarray(points) * px * 16).astype(np.int32)

    corner = (rng.uniform(0.88, 0.95), rng.uniform(0.06, 0.2))
    marker = np.array([(0, 0), (0, 0.04), (0.022, 0.04)]) + corner
    cv2.polylines(canvas, [pixels(marker)], False, (230,), max(1, px // 90), cv2.LINE_AA, 4)
    for _ in range(exposure.n_electrodes):
        x, y = rng.uniform(0.2, 0.8), rng.uniform(0.2, 0.75)
        wire = [(x, y), (x + rng.normal(0, 0.1), y + 0.25), (x + rng.normal(0, 0.25), 1.05)]
        cv2.polylines(canvas, [pixels(wire)], False, (80,), 1, cv2.LINE_AA, 4)
        radius = rng.uniform(0.008, 0.014)
        cv2.circle(canvas, tuple(pixels((x, y)).tolist()), round(radius * px * 16), (150,), -1, cv2.LINE_AA, 4)
    if exposure.has_tube:
        x = rng.normal(0.5, 0.02)
        tube = [(x + rng.normal(0, 0.02), -0.02), (x, 0.15), (x + rng.normal(0, 0.015), rng.uniform(0.3, 0.9))]
        cv2.polylines(canvas, [pixels(tube)], False, (110,), max(1, px // 80), cv2.LINE_AA, 4)
    if exposure.has_pacemaker:
        x, y = rng.uniform(0.68, 0.78), rng.uniform(0.2, 0.3)
        axes = (round(0.035 * px * 16), round(0.028 * px * 16))
        cv2.ellipse(canvas, tuple(pixels((x, y)).tolist()), axes, 20, 0, 360, (200,), -1, cv2.LINE_AA, 4)
        lead = [(x, y), (0.58, y - 0.03), (0.52, y + 0.1), (0.56, y + 0.35)]
        cv2.polylines(canvas, [pixels(lead)], False, (140,), 1, cv2.LINE_AA, 4)
    return as_field(cv2.GaussianBlur(canvas, (0, 0), 0.5).astype(np.float32) / 255)
