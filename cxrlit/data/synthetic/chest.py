"""A patient's chest: position and attenuation of lungs, heart and diaphragm in one image."""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from cxrlit.data.synthetic.anatomy import Anatomy, Exposure, Lesion
from cxrlit.data.synthetic.primitives import Field, as_field, blur, draw_lines, noise, ramp


class Chest:
    """Geometry of the lungs, the heart and the diaphragm in one image, which the findings use as well.

    Lengths are fractions of the image's height, fields are (S, S), sides are -1 (patient's right) and 1 (left).

    Attributes:
        anatomy, exposure, px: Parameters of the image; ``px`` is its side in pixels.
        x, y, across: Coordinates in the body's frame, and the distance from the spine.
        base, heart_width: Lowest point of the lungs; width of the heart / width of the chest.
        fraction, outer: Height between the lungs' apex (0) and base (1); half-width of the chest's inside there.
        diaphragm: y of the diaphragm, by side.
        heart, lung, lungs: In [0, 1]; ``lung`` by side, without the part behind the heart; ``lungs`` of both sides.
        vessels: Attenuation of the lungs' vessels.
    """

    def __init__(self, anatomy: Anatomy, exposure: Exposure, lesions: Sequence[Lesion], image_px: int) -> None:
        self.anatomy, self.exposure, self.px = anatomy, exposure, image_px
        line = (np.arange(image_px, dtype=np.float32) + 0.5) / image_px
        self.x: Field = np.broadcast_to(line - 0.5, (image_px, image_px))
        self.y: Field = np.broadcast_to(line[:, None], (image_px, image_px))
        self.across: Field = np.abs(self.x)

        self.base = anatomy.base - 0.10 * (1 - exposure.inspiration)
        self.heart_width = anatomy.cardiothoracic * (1.08 if exposure.portable else 1.0)
        raised = {-1: 0.012, 1: 0.0}  # the liver lifts the right dome
        for lesion in lesions:
            if lesion.label == "Cardiomegaly":
                self.heart_width = 0.55 + 0.02 * lesion.opacity + 0.11 * lesion.size
            if lesion.label == "Atelectasis":
                raised[lesion.side] += 0.02 + 0.06 * lesion.size

        # Outline of the lungs by height: 0 at the apex, 1 at the base.
        self.fraction: Field = np.clip((self.y - anatomy.apex) / (self.base - anatomy.apex), 0, 1)
        self.outer: Field = self.chest_wall(self.fraction)
        inner = anatomy.mediastinum + 0.05 * np.exp(-self.fraction / 0.08) + 0.012 * np.sin(9 * self.fraction)
        arch = (self.across - 0.45 * (anatomy.half_chest + anatomy.mediastinum)) / anatomy.half_chest
        self.diaphragm = {side: self.base - raised[side] - anatomy.dome * (1 - 5 * arch**2) for side in (-1, 1)}
        self.heart: Field = self._heart()
        self.lung: dict[int, Field] = {
            side: ramp(self.x * side, 0, 0.01)
            * ramp(self.across, inner, 0.03)
            * ramp(-self.across, -self.outer, 0.014)
            * ramp(-self.y, -self.diaphragm[side], 0.014)
            * (1 - 0.92 * self.heart)
            for side in (-1, 1)
        }
        self.lungs: Field = self.lung[-1] + self.lung[1]
        self.vessels: Field = 0.34 * anatomy.vessels * _draw_vessels(anatomy, image_px) * self.lungs

    def chest_wall(self, fraction: Field) -> Field:
        """Half-width of the inside of the chest by height, which is 0 at the apex and 1 at the base."""
        return as_field(self.anatomy.half_chest * np.sqrt(1 - (1 - fraction) ** 2.6 + 1e-6))

    def place(self, lesion: Lesion, side: int) -> tuple[float, float]:
        """The x and y of a lesion's centre in the body's frame, for a lesion on ``side``."""
        anatomy = self.anatomy
        top, bottom = anatomy.apex + 0.05, self.base - anatomy.dome
        y = bottom - lesion.height * (bottom - top)
        wall = float(self.chest_wall(as_field((y - anatomy.apex) / (self.base - anatomy.apex))))
        return side * (anatomy.mediastinum + 0.03 + lesion.depth * (wall - anatomy.mediastinum - 0.05)), y

    def attenuation(self) -> Field:
        """Attenuation of soft tissue, air, heart and vessels, without bone."""
        anatomy = self.anatomy
        film = _draw_body(anatomy, self.px) * (1 - self.exposure.air * self.lungs)
        film = film + self.exposure.haze * noise(self.exposure.seed + 1, 5, self.px) * self.lungs
        film = film + 0.22 * ramp(-self.across, -anatomy.mediastinum, 0.05) + 0.10 * self.heart
        film = film + 0.25 * ramp(self.y, self.base, 0.3)
        film = film + self.vessels

        # Air in the stomach under the left dome.
        rng = np.random.default_rng(anatomy.seed + 3)
        bubble_x, bubble_y = anatomy.half_chest * rng.uniform(0.35, 0.6), self.base + rng.uniform(0.0, 0.05)
        bubble = ((self.x - bubble_x) / rng.uniform(0.04, 0.09)) ** 2 + ((self.y - bubble_y) / 0.025) ** 2
        film = film - rng.uniform(0.0, 0.4) * np.clip(1.5 - bubble, 0, 1) * (1 - self.lung[1])
        for side in (-1, 1):
            if anatomy.breast > 0:
                breast = ((self.x - side * 0.62 * anatomy.half_chest) / (0.6 * anatomy.half_chest)) ** 2
                breast = breast + ((self.y - self.base + 0.10) / (0.10 + 0.3 * anatomy.breast)) ** 2
                film = film + anatomy.breast * np.clip(1.2 - breast, 0, 0.5)
            if anatomy.nipples:
                nipple = np.hypot(self.x - side * 0.62 * anatomy.half_chest, self.y - self.base + 0.13)
                film = film + 0.12 * ramp(-nipple, -0.014, 0.008)
        return as_field(film)

    def _heart(self) -> Field:
        """The heart, in [0, 1]: two thirds of its width are left of the spine; it lies on the diaphragm."""
        anatomy = self.anatomy
        left, right = (share * self.heart_width * 2 * anatomy.half_chest for share in (0.66, 0.34))
        height = (0.40 + 0.10 * anatomy.heart_axis) * (0.55 + self.heart_width)
        down = np.clip((self.fraction - 1 + height) / height, 0, 1)
        bulge = np.sin(0.5 * math.pi * np.clip(down / 0.85, 0, 1)) ** (1.2 + 0.8 * anatomy.heart_axis)
        bulge = bulge * (1 - 6 * np.clip(down - 0.85, 0, 1) ** 2)
        left_border = anatomy.mediastinum + (left - anatomy.mediastinum) * bulge
        right_border = anatomy.mediastinum + max(0.0, right - anatomy.mediastinum) * np.sin(math.pi * 0.85 * down)
        # The arch of the aorta.
        knob = np.exp(-(((self.fraction - 0.24) / 0.07) ** 2))
        left_border = left_border + 0.022 * knob
        border = np.where(self.x > 0, left_border, right_border)
        return as_field(ramp(as_field(-self.across), as_field(-border), 0.022) * ramp(self.fraction, 0.1, 0.1))


# Parts shared by a patient's images are cached: a thread draws these images in sequence.


@lru_cache(maxsize=8)
def _draw_body(anatomy: Anatomy, px: int) -> Field:
    """Soft tissue of chest, shoulders and arms, as the length of the ray's path through it."""
    line = (np.arange(px, dtype=np.float32) + 0.5) / px
    across, y = np.abs(line - 0.5)[None, :], line[:, None]
    torso = anatomy.half_chest + anatomy.soft_tissue
    shoulder = np.clip((y + 0.03) / 0.26, 0, 1) ** 1.5
    waist = np.clip((y - 0.30) / 0.25, 0, 1)
    waist = waist * waist * (3 - 2 * waist) * max(0.0, 0.66 - torso) * (not anatomy.arms_in_view)
    skin = 0.10 + 0.56 * shoulder - waist
    body = anatomy.thickness * np.clip(1 - (across / skin) ** 4, 0, 1) ** 0.4
    if anatomy.arms_in_view:
        armpit = np.exp(-(((across - torso - 0.012) / 0.012) ** 2))
        body = body * (1 - 0.3 * armpit * np.clip((y - 0.35) / 0.1, 0, 1))
    body = body * (1 + 0.07 * noise(anatomy.seed + 2, 7, px)) * (0.9 + 0.1 * np.clip(y / 0.25, 0, 1))
    return as_field(body + 0.03 * anatomy.lung_grain * noise(anatomy.seed + 1, 40, px) * (body > 0.3))


@lru_cache(maxsize=8)
def _draw_vessels(anatomy: Anatomy, px: int) -> Field:
    """Vessels, in [0, 1]: a tree from each hilum, thick and bright at its root."""
    rng = np.random.default_rng(anatomy.seed)
    paths = []
    for side in (-1, 1):
        root = np.array([anatomy.mediastinum + 0.02, anatomy.apex + 0.29 + 0.015 * side])
        paths.append((np.stack([root - (0, 0.03), root + (0.005, 0.04)]) * (side, 1), 0.035, 0.45))
        for _ in range(11):
            twig, heading, length = root, rng.uniform(-1.4, 1.4), rng.uniform(0.12, 0.30)
            for step in range(6):
                heading += rng.normal(0, 0.22)
                end = twig + length / 6 * np.array([math.cos(heading), math.sin(heading)])
                paths.append((np.stack([twig, end]) * (side, 1), 0.013 - 0.0016 * step, 0.8 - 0.11 * step))
                if step in (1, 3):
                    fork = heading + rng.choice((-0.6, 0.6))
                    branch = end + 0.35 * length * np.array([math.cos(fork), math.sin(fork)])
                    paths.append((np.stack([end, branch]) * (side, 1), 0.008 - 0.001 * step, 0.5 - 0.06 * step))
                twig = end
    return blur(draw_lines(paths, px), 0.0025)


@lru_cache(maxsize=8)
def draw_skeleton(anatomy: Anatomy, px: int, shoulder_blades: bool) -> Field:
    """Attenuation of the bones: spine, ribs, clavicles. Cached: do not modify it.

    Args:
        anatomy: The patient.
        px: Side of the image, in pixels.
        shoulder_blades: Whether the shoulder blades overlap the lungs, as they do unless the arms are pulled forward.
    """
    rng = np.random.default_rng(anatomy.seed + 4)
    line = (np.arange(px, dtype=np.float32) + 0.5) / px
    spine = (
        ramp(-np.abs(line - 0.5)[None, :], -0.034, 0.014) * (0.8 + 0.2 * np.cos(line * (2 * math.pi / 0.055)))[:, None]
    )
    along = np.linspace(0, 1, 14)
    ribs, marrow = [], []
    for number in range(10):
        top = anatomy.apex - 0.045 + number * anatomy.rib_spacing + rng.normal(0, 0.004)
        drop = anatomy.rib_slope + 0.010 * number
        height = np.clip((top + 0.8 * drop - anatomy.apex) / (anatomy.base - anatomy.apex), 0.03, 1)
        width = (anatomy.half_chest + 0.012) * math.sqrt(1 - (1 - float(height)) ** 2.6)
        for side in (-1, 1):
            # Posterior part: from the spine up and out, then down along the chest wall.
            x = 0.03 + (width - 0.03) * np.sin(along * math.pi / 2)
            y = top - 0.025 * np.sin(along * math.pi) + drop * along**2.2
            path = np.stack([side * x, y], axis=1)
            ribs.append((path, 0.024, 0.85))
            marrow.append((path, 0.013, 0.45))
            if 0 < number < 8:  # anterior part: back towards the breastbone, fainter
                x = width * (1 - 0.62 * along)
                y = y[-1] + (0.10 + 0.012 * number) * along - 0.03 * along**2
                ribs.append((np.stack([side * x, y], axis=1), 0.022, 0.4))
    bones = blur(np.maximum(draw_lines(ribs, px) - draw_lines(marrow, px), 0), 0.003)
    bones = bones * (1 - 0.8 * ramp(as_field(line), anatomy.base - 0.02, 0.15)[:, None])
    collar = []
    for side in (-1, 1):
        lift, mirror = rng.normal(0, 0.012), np.array((side, 1))
        clavicle = np.array([(0.03, 0.085), (0.11, 0.05 + lift), (0.2, 0.035 + lift), (0.33, -0.01 + lift)])
        collar.append((clavicle * mirror + (0, anatomy.apex), 0.028, 0.75))
        if shoulder_blades:
            inward = anatomy.half_chest - 0.05
            blade = np.array([(inward + 0.09, 0.02), (inward, 0.14), (inward + 0.01, 0.27), (inward + 0.06, 0.33)])
            collar.append((blade * mirror + (0, anatomy.apex), 0.012, 0.35))
    bones = (bones + blur(draw_lines(collar, px), 0.004)) * ramp(_draw_body(anatomy, px), 0.35, 0.5)
    return as_field(anatomy.bone * (0.20 * spine + 0.19 * bones * (1 + 0.25 * noise(anatomy.seed + 5, 32, px))))
