"""Parameters of a drawing: a patient's build, the findings, and the exposure of one image."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Anatomy:
    """Properties shared by all images of a patient. Lengths are fractions of the image's height."""

    seed: int  # of the vessels, the irregularity of the ribs and the texture
    half_chest: float
    apex: float
    base: float  # lowest point of the lungs, at full inspiration
    dome: float  # how far the diaphragm bulges into the lungs
    mediastinum: float  # half-width
    cardiothoracic: float  # width of the heart / width of the chest
    heart_axis: float  # 0 lies flat, 1 hangs upright
    soft_tissue: float  # between lung and skin
    thickness: float  # attenuation of the chest wall
    rib_spacing: float
    rib_slope: float
    bone: float  # attenuation of bone
    vessels: float
    lung_grain: float
    breast: float  # 0 for none
    nipples: bool
    arms_in_view: bool


def sample_anatomy(rng: np.random.Generator, *, female: bool) -> Anatomy:
    """Sample a patient's build, with the variety of a hospital's adults.

    Args:
        rng: Random generator.
        female: Whether the patient has breasts.
    """
    return Anatomy(
        seed=int(rng.integers(2**31)),
        half_chest=rng.uniform(0.32, 0.42),
        apex=rng.uniform(0.09, 0.17),
        base=rng.uniform(0.74, 0.88),
        dome=rng.uniform(0.04, 0.11),
        mediastinum=rng.uniform(0.045, 0.075),
        cardiothoracic=float(np.clip(rng.normal(0.44, 0.04), 0.35, 0.52)),
        heart_axis=rng.uniform(0, 1),
        soft_tissue=rng.uniform(0.03, 0.12),
        thickness=rng.uniform(0.95, 1.3),
        rib_spacing=rng.uniform(0.068, 0.09),
        rib_slope=rng.uniform(0.05, 0.16),
        bone=rng.uniform(0.6, 1.4),
        vessels=rng.uniform(0.5, 1.2),
        lung_grain=rng.uniform(0.3, 1.0),
        breast=rng.uniform(0.05, 0.28) if female else 0.0,
        nipples=bool(rng.random() < 0.15),
        arms_in_view=bool(rng.random() < 0.4),
    )


@dataclass(frozen=True)
class Lesion:
    """One finding in one image.

    ``depth`` is the position between the mediastinum (0) and the ribs (1), ``height`` between the diaphragm (0) and
    the apex of the lung (1); findings with a fixed place ignore them.
    """

    label: str
    side: int  # -1 the patient's right, 1 the left, 0 both or neither
    depth: float
    height: float
    size: float  # 0 the smallest of its kind, 1 the largest
    opacity: float  # 0 barely visible, 1 dense
    seed: int  # of its outline and texture


@dataclass(frozen=True)
class Exposure:
    """Properties that vary between the images of a patient, independent of the findings."""

    seed: int  # of noise and hardware
    portable: bool  # AP: taken at the bedside, lying down
    shift: tuple[float, float]  # right and down, as fractions of the image's side
    rotation: float  # degrees
    scale: float
    inspiration: float  # 0 to 1
    air: float  # removed fraction of the lungs' attenuation
    haze: float  # uneven haze of the lungs without meaning
    gain: float
    gamma: float
    fog: float  # scattered radiation: the darkest gray, in [0, 1]
    noise: float  # standard deviation of the gray values, in [0, 1]
    n_electrodes: int
    has_tube: bool
    has_pacemaker: bool


def sample_exposure(rng: np.random.Generator, *, portable: bool) -> Exposure:
    """Sample the exposure of one image. The hardware is independent of the findings, so that it is no shortcut.

    Args:
        rng: Random generator.
        portable: Whether the image is taken at the bedside (AP).
    """
    return Exposure(
        seed=int(rng.integers(2**31)),
        portable=portable,
        shift=(rng.normal(0, 0.035), rng.normal(0, 0.03)),
        rotation=rng.normal(0, 3.5),
        scale=rng.uniform(0.88, 1.08) * (1.05 if portable else 1.0),
        inspiration=float(np.clip(rng.normal(0.65 if portable else 0.85, 0.12), 0.3, 1)),
        air=rng.uniform(0.60, 0.78),
        haze=rng.uniform(0.03, 0.10),
        gain=rng.uniform(0.82, 1.12),
        gamma=rng.uniform(0.75, 1.45),
        fog=rng.uniform(0.0, 0.14) + (0.05 if portable else 0.0),
        noise=rng.uniform(0.004, 0.014),
        n_electrodes=int(rng.integers(2, 5)) if rng.random() < 0.18 else 0,
        has_tube=bool(rng.random() < 0.12),
        has_pacemaker=bool(rng.random() < 0.05),
    )
