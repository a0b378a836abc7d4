"""DICOM files of made-up pixels, with patients whose names must never be seen again."""

import io
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

SECRET = "SECRET^NAME"
PLAIN = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
LOSSLESS = [JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless, RLELossless]


def draw_radiograph(
    height: int = 40, width: int = 56, n_bits: int = 12, signed: bool = False, seed: int = 0
) -> NDArray[Any]:
    """A slope with noise over all values of some bits."""
    rng = np.random.default_rng(seed)
    slope = np.linspace(0, 1, height)[:, None] * np.linspace(1, 0.6, width)
    values = np.clip(2**n_bits * (slope + rng.normal(0, 0.02, (height, width))), 0, 2**n_bits - 1)
    values[0, 0], values[-1, -1] = 0, 2**n_bits - 1
    values = values - 2 ** (n_bits - 1) * signed
    kind = {(True, False): np.uint8, (False, False): np.uint16, (True, True): np.int8, (False, True): np.int16}
    return values.astype(kind[n_bits == 8, signed])


def make_dataset(stored: NDArray[Any], syntax: str = ExplicitVRLittleEndian, **attributes: Any) -> Dataset:
    """A data set of pixels, compressed without loss where the syntax is of a compression.

    Args:
        stored: (H, W) the stored values: 8 bits where they are of 1 byte, otherwise 16.
        syntax: UID of the transfer syntax.
        attributes: More elements, by keyword; ``BitsStored`` also sets ``HighBit``; None removes one.
    """
    n_bits = 8 * stored.itemsize
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    dataset.SOPInstanceUID = generate_uid()
    dataset.PatientName = SECRET
    dataset.PatientID = SECRET
    dataset.InstitutionName = SECRET
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = stored.shape
    dataset.BitsAllocated = n_bits
    dataset.BitsStored = n_bits
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    for name, value in attributes.items():
        if value is not None:
            setattr(dataset, name, value)
        elif name in dataset:
            delattr(dataset, name)
    if "BitsStored" in dataset and "HighBit" not in attributes:
        dataset.HighBit = dataset.BitsStored - 1
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    data = stored.astype(stored.dtype.newbyteorder(order)).tobytes()
    if n_bits == 8 and order == ">":  # two pixels in a word
        data = np.frombuffer(data + b"\0" * (len(data) % 2), np.uint16).byteswap().tobytes()
    dataset.PixelData = data
    dataset["PixelData"].VR = "OB" if n_bits == 8 and order == "<" else "OW"
    if syntax not in PLAIN:
        set_codestream(dataset, compress(stored, syntax, attributes.get("BitsStored", n_bits)))
    return dataset


def set_codestream(dataset: Dataset, *fragments: bytes, offsets: bool = True) -> None:
    """Put a compressed image into a data set."""
    dataset.PixelData = encapsulate([b"".join(fragments)], fragments_per_frame=len(fragments), has_bot=offsets)
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True


def compress(stored: NDArray[Any], syntax: str, n_bits: int) -> bytes:
    """Compress without loss; a sign is a bit like the others, but for JPEG 2000, which knows signs."""
    bits = (stored.astype(np.int64) & 2**n_bits - 1).astype(f"u{stored.itemsize}")
    if syntax == JPEGLosslessSV1:
        return bytes(imagecodecs.jpeg8_encode(bits, lossless=True, predictor=1, bitspersample=n_bits))
    if syntax == JPEGLSLossless:
        return bytes(imagecodecs.jpegls_encode(bits))
    if syntax == JPEG2000Lossless:
        return bytes(imagecodecs.jpeg2k_encode(stored, codecformat="j2k", reversible=True, bitspersample=n_bits))
    planes = [bits >> shift & 255 for shift in range(8 * stored.itemsize - 8, -8, -8)]
    segments = [bytes(imagecodecs.packbits_encode(plane.astype(np.uint8).tobytes())) for plane in planes]
    segments = [segment + b"\0" * (len(segment) % 2) for segment in segments]
    starts = np.cumsum([64, *map(len, segments)])[:-1]
    header = np.zeros(16, "<u4")
    header[0], header[1 : 1 + len(starts)] = len(segments), starts
    return header.tobytes() + b"".join(segments)


def save(dataset: Dataset) -> bytes:
    """The bytes of a file."""
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def make_dicom(stored: NDArray[Any], syntax: str = ExplicitVRLittleEndian, **attributes: Any) -> bytes:
    """The file of ``make_dataset``."""
    return save(make_dataset(stored, syntax, **attributes))
