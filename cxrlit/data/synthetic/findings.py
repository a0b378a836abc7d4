"""The eight findings: each increases or decreases a chest's attenuation."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from cxrlit.data.synthetic.anatomy import Lesion
from cxrlit.data.synthetic.chest import Chest
from cxrlit.data.synthetic.primitives import Field, as_field, blur, draw_lines, noise, ramp


def _blob(chest: Chest, centre: tuple[float, float], seed: int, radius: float, edge: float, roughness: float) -> Field:
    """A round opacity of irregular outline, in [0, 1]."""
    distance = np.hypot(chest.x - centre[0], chest.y - centre[1]) / radius
    distance = distance * (1 + roughness * noise(seed, 9, chest.px))
    return as_field(np.clip((1 - distance) / edge + 0.5, 0, 1))


def _draw_atelectasis(chest: Chest, lesion: Lesion, rng: np.random.Generator) -> tuple[Field, Field]:
    """Plates of collapsed lung above a raised diaphragm."""
    x, y = chest.place(lesion, lesion.side)
    paths = []
    for plate in range(2 + int(lesion.size * 1.99)):
        length, tilt = rng.uniform(0.06, 0.09) + 0.04 * lesion.size, rng.normal(0.2, 0.25)
        centre = np.array([x, y + (plate - 1) * 0.055 + rng.normal(0, 0.008)])
        reach = length * np.array([math.cos(tilt), math.sin(tilt) * lesion.side])
        width, bow = rng.uniform(0.020, 0.030), np.array([0, rng.normal(0, 0.008)])
        for share in (1.0, 0.6):  # thicker in the middle
            ends = [centre - share * reach, centre - share * bow, centre + share * reach]
            paths.append((np.stack(ends), width * (1.5 - share), 1.0))
    plates = blur(draw_lines(paths, chest.px), 0.005) * chest.lung[lesion.side]
    return as_field((0.34 + 0.25 * lesion.opacity) * plates), plates


def _draw_cardiomegaly(chest: Chest, lesion: Lesion, rng: np.random.Generator) -> tuple[Field, Field]:
    """Add nothing: the heart is drawn wide, see ``Chest.heart_width``."""
    return np.zeros_like(chest.heart), as_field(chest.heart * ramp(chest.fraction, 0.45, 0.02))


def _draw_effusion(chest: Chest, lesion: Lesion, rng: np.random.Generator) -> tuple[Field, Field]:
    """Fluid over the diaphragm, its surface rising towards the chest wall."""
    level = chest.base - 0.03 - 0.20 * lesion.size**1.5
    wall = np.clip((chest.outer - chest.across) / 0.09, 0, 8)
    surface = level - (0.06 + 0.06 * lesion.size) * np.exp(-wall)
    fluid = ramp(chest.y, as_field(surface), 0.035) * chest.lung[lesion.side]
    return as_field((0.50 + 0.25 * lesion.opacity) * fluid), fluid


def _draw_infiltration(chest: Chest, lesion: Lesion, rng: np.random.Generator) -> tuple[Field, Field]:
    """Patches of fine net-like haze, in one lung or in both."""
    radius = 0.12 + 0.09 * lesion.size
    haze = np.zeros_like(chest.heart)
    for side in (-1, 1) if lesion.side == 0 else (lesion.side,):
        x, y = chest.place(lesion, side)
        distance = ((chest.x - x) / (0.8 * radius)) ** 2 + ((chest.y - y) / (1.2 * radius)) ** 2
        haze = haze + np.exp(-(distance**2)) * chest.lung[side]
    patches = np.clip(0.55 + 0.6 * noise(lesion.seed, 22, chest.px), 0, 1.6)
    net = np.clip(1 - np.abs(noise(lesion.seed + 1, 44, chest.px)), 0, 1)  # zero crossings read as a net
    return as_field((0.28 + 0.22 * lesion.opacity) * haze * (0.7 * patches + 0.4 * net)), as_field(haze)


def _draw_mass(chest: Chest, lesion: Lesion, rng: np.random.Generator) -> tuple[Field, Field]:
    """A round opacity more than 3 cm wide."""
    centre, radius = chest.place(lesion, lesion.side), 0.070 + 0.045 * lesion.size
    mass = _blob(chest, centre, lesion.seed, radius, edge=0.25, roughness=0.08) * chest.lungs
    return as_field((0.40 + 0.25 * lesion.opacity) * mass), mass


def _draw_nodule(chest: Chest, lesion: Lesion, rng: np.random.Generator) -> tuple[Field, Field]:
    """One to three round opacities less than 3 cm wide, in one lung."""
    nodules = np.zeros_like(chest.heart)
    for _ in range(int(rng.integers(1, 4))):
        radius = 0.030 + 0.012 * lesion.size
        centre = chest.place(lesion, lesion.side)
        nodules = np.maximum(nodules, _blob(chest, centre, lesion.seed, radius, edge=0.5, roughness=0.05))
        lesion = replace(lesion, depth=rng.uniform(0.15, 0.85), height=rng.uniform(0.05, 0.95))
    nodules = nodules * chest.lungs
    return as_field((0.48 + 0.25 * lesion.opacity) * nodules), nodules


def _draw_pneumonia(chest: Chest, lesion: Lesion, rng: np.random.Generator) -> tuple[Field, Field]:
    """A lobe full of fluid: dense, flat against the fissure, with the airways dark in it."""
    x, y = chest.place(lesion, lesion.side)
    radius = 0.13 + 0.06 * lesion.size
    lobe = _blob(chest, (x, y), lesion.seed, radius, edge=0.5, roughness=0.2) * chest.lung[lesion.side]
    slope, flat = rng.normal(0, 0.15), int(rng.choice((-1, 1)))
    fissure = flat * (chest.y - y - slope * (chest.x - x))
    lobe = lobe * ramp(as_field(fissure), -0.25 * radius, 0.02)
    airways = []
    for _ in range(5):
        heading = rng.uniform(-1.2, 1.2)
        start = np.array([x - lesion.side * radius * 0.6, y + rng.normal(0, 0.02)])
        end = start + 1.5 * radius * np.array([lesion.side * math.cos(heading), math.sin(heading)])
        airways.append((np.stack([start, end]), 0.010, 1.0))
    bronchograms = blur(draw_lines(airways, chest.px), 0.002) * lobe
    return as_field((0.48 + 0.22 * lesion.opacity) * (lobe - 0.6 * bronchograms)), lobe


def _draw_pneumothorax(chest: Chest, lesion: Lesion, rng: np.random.Generator) -> tuple[Field, Field]:
    """Air between lung and chest wall: the lung's edge as a fine line, and beyond it no vessels."""
    depth = 0.045 + 0.08 * lesion.size
    # Air rises: the gap is widest at the apex and closes towards the base.
    gap = depth * np.clip(1.25 - 1.1 * chest.fraction, 0.05, 1)
    shrunk = chest.fraction - 0.6 * depth / (chest.base - chest.anatomy.apex)
    edge = as_field(chest.chest_wall(as_field(np.clip(shrunk, 0, 1))) - gap)
    lung = chest.lung[lesion.side]
    air = ramp(chest.across, edge, 0.008) * lung
    line = np.exp(-(((chest.across - edge) / 0.006) ** 2)) * lung
    collapsed = (lung - air) * (0.02 + 0.08 * lesion.size)
    lost = air * (chest.vessels + 0.09 + 0.08 * lesion.opacity)
    return as_field((0.10 + 0.12 * lesion.opacity) * line + collapsed - lost), as_field(air)


DRAW: dict[str, Callable[[Chest, Lesion, np.random.Generator], tuple[Field, Field]]] = {
    "Atelectasis": _draw_atelectasis,
    "Cardiomegaly": _draw_cardiomegaly,
    "Effusion": _draw_effusion,
    "Infiltration": _draw_infiltration,
    "Mass": _draw_mass,
    "Nodule": _draw_nodule,
    "Pneumonia": _draw_pneumonia,
    "Pneumothorax": _draw_pneumothorax,
}
"""Functions by label. They take the chest, the lesion and the lesion's random generator, and return the added
attenuation and a mask in [0, 1], both (S, S)."""
