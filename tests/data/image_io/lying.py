"""DICOM files whose tags lie about pixels that are known."""

from typing import Any

import numpy as np
import pydicom
from dicoms import LOSSLESS, PLAIN, SECRET, draw_radiograph, make_dataset, save
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from cxrlit.data.image_io.decode import decode_pixels

LIES = [
    "bits stored", "bits stored and high bit", "sign", "bits and sign", "slope", "window", "voi lut", "modality lut",
    "padding", "bits allocated", "rows", "columns", "syntax", "beginning", "colour", "samples",
]  # fmt: skip


def tell_lies(rng: np.random.Generator, *lies: str) -> tuple[bytes, NDArray[np.float64]]:
    """A file that lies, and the picture that its pixels are: what is lighter is larger.

    Args:
        rng: Chooses the pixels, the syntax and what exactly is said.
        lies: Of ``LIES``.
    """
    n_bits, signed = int(rng.choice([8, 10, 12, 14, 16])), bool(rng.integers(2))
    stored = draw_radiograph(
        int(rng.integers(30, 60)), int(rng.integers(30, 60)), n_bits, signed, int(rng.integers(99))
    )
    room = 8 * stored.itemsize
    syntax = [*PLAIN, *LOSSLESS][rng.integers(8)]
    dataset = make_dataset(stored, syntax, BitsStored=n_bits)
    picture = stored.astype(np.float64)
    if rng.integers(3) == 0 and "colour" not in lies:  # one gray channel of a file in colour is read as white on black
        dataset.PhotometricInterpretation, picture = "MONOCHROME1", -picture
    for lie in lies:
        if lie == "voi lut" and "modality lut" in lies:
            continue  # it would be one for other values
        if lie == "rows" and "columns" in lies:
            continue  # a size with as many pixels cannot be told from the true one
        _tell(dataset, lie, stored, room, rng)
    content = save(dataset)
    if "beginning" in lies:
        content = content[[132, 144 + int.from_bytes(content[140:144], "little")][rng.integers(2)] :]
    if "syntax" in lies:
        other = [*PLAIN, *LOSSLESS][rng.integers(8)]
        size = len(syntax) + len(syntax) % 2
        if len(other) + len(other) % 2 == size:
            content = content.replace(syntax.encode().ljust(size, b"\0"), other.encode().ljust(size, b"\0"), 1)
    return content, picture


def _tell(dataset: Dataset, lie: str, stored: NDArray[Any], room: int, rng: np.random.Generator) -> None:
    low, high = int(stored.min()), int(stored.max())
    if lie.startswith("bits stored") or lie == "bits and sign":
        dataset.BitsStored = int(rng.integers(2, room + 1))
        dataset.HighBit = int(rng.integers(1, room)) if lie == "bits stored and high bit" else dataset.BitsStored - 1
    if lie in ("sign", "bits and sign"):
        dataset.PixelRepresentation = 1 - dataset.PixelRepresentation
    if lie == "slope":
        _set_text(dataset, "RescaleSlope", str(rng.choice(["0", "0.0", "nan", "-0", "inf", "x", "1e-300"])))
        _set_text(dataset, "RescaleIntercept", str(rng.choice(["0", "5", "nan", ""])))
    if lie == "window":
        beside = [low - 10**6, high + 10**6]
        _set_text(dataset, "WindowCenter", str(rng.choice([*map(str, beside), "nan", ""])))
        _set_text(dataset, "WindowWidth", str(rng.choice(["1000", "0", "-50", "0.5", "nan"])))
    if lie.endswith("lut"):  # a ramp over the values that are there, and something else said of it
        first = low if rng.integers(2) else low % 2**16
        entries = np.linspace(0, 2 ** int(rng.integers(10, 17)) - 1, high - low + 1)
        item = Dataset()
        item.add_new(0x0028_3002, "US", [int(rng.integers(0, 2**16)), first % 2**16, int(rng.choice([8, 10, 12, 16]))])
        item.add_new(0x0028_3006, "OW", entries.astype("<u2").tobytes())
        setattr(dataset, "VOILUTSequence" if lie == "voi lut" else "ModalityLUTSequence", Sequence([item]))
        if dataset.file_meta.TransferSyntaxUID.is_little_endian is False:
            item[0x0028_3006].value = entries.astype(">u2").tobytes()
    if lie == "padding":
        middle = int(np.median(stored)) % 2**16
        dataset.add_new(0x0028_0120, "US", middle)
    if lie == "bits allocated":
        dataset.BitsAllocated = int(rng.choice([8, 16, 32]))
    if lie in ("rows", "columns"):
        name = lie.capitalize()
        setattr(dataset, name, max(1, dataset[name].value + int(rng.choice([-9, -1, 1, 9, 2000]))))
    if lie == "colour":
        dataset.PhotometricInterpretation = str(rng.choice(["RGB", "YBR_FULL", "PALETTE COLOR", "CMYK", ""]))
    if lie == "samples":
        dataset.SamplesPerPixel = int(rng.choice([0, 2, 3, 4]))


def _set_text(dataset: Dataset, name: str, text: str) -> None:
    dataset[name] = pydicom.DataElement(name, "DS", text, validation_mode=0, already_converted=True)


def correlate(decoded: NDArray[Any], picture: NDArray[np.float64]) -> float:
    """How far a picture is the true one; 0 where it has another size."""
    if decoded.shape != picture.shape:
        return 0.0
    return float(np.corrcoef(decoded.ravel(), picture.ravel())[0, 1])


def check_lies(content: bytes, picture: NDArray[np.float64]) -> bool:
    """Whether a file is decoded; then the picture is the true one, else there is a reason that quotes nothing."""
    try:
        decoded = decode_pixels(content)
    except ValueError as error:
        assert type(error) is ValueError  # noqa: PT017
        assert str(error).isprintable()  # noqa: PT017
        assert SECRET not in str(error)  # noqa: PT017
        return False
    assert correlate(decoded, picture) > 0.99
    return True
