"""Damaged and odd image files, the same for the same seed; and a process of its own that decodes them under watch.

``python fuzzing.py FOLDER`` decodes what ``write_damaged_images`` has put there, and writes ``outcomes.csv`` beside.
"""

import faulthandler
import hashlib
import io
import os
import resource
import struct
import sys
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from dicoms import LOSSLESS, PLAIN, draw_radiograph, make_dataset, make_dicom, save, set_codestream
from numpy.typing import NDArray
from PIL import Image

FILE_SECONDS = 20
"""A file that takes longer hangs."""

Pixels = NDArray[Any]
Made = tuple[bytes, Pixels | None]
"""What a file holds, and its pixels; None where it cannot be decoded."""


def hash_pixels(pixels: Pixels) -> str:
    """A hash of gray values and their size."""
    return hashlib.blake2b(repr(pixels.shape).encode() + pixels.tobytes(), digest_size=8).hexdigest()


# Contents


def _draw(rng: np.random.Generator) -> NDArray[np.uint8]:
    height, width = rng.integers(8, 80, 2)
    return draw_radiograph(int(height), int(width), 8, seed=int(rng.integers(2**31)))


def _encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))


def _add_chunk(content: bytes, kind: bytes, data: bytes) -> bytes:
    return content[:33] + _chunk(kind, data) + content[33:]


def _gray(rng: np.random.Generator) -> Made:
    pixels = _draw(rng)
    return _encode(Image.fromarray(pixels), "PNG"), pixels


def _rgba(rng: np.random.Generator) -> Made:
    pixels = _draw(rng)
    return _encode(Image.fromarray(np.repeat(pixels[..., None], 4, axis=2)), "PNG"), pixels


def _sixteen_bits(rng: np.random.Generator) -> Made:
    pixels = _draw(rng).astype(np.uint16) * 257
    return _encode(Image.fromarray(pixels), "PNG"), pixels


def _jpeg(rng: np.random.Generator) -> Made:
    content = _encode(Image.fromarray(_draw(rng)), "JPEG", progressive=bool(rng.integers(2)))
    with Image.open(io.BytesIO(content)) as image:
        return content, np.asarray(image)


def _dicom(rng: np.random.Generator) -> Made:
    pixels = _draw(rng)
    syntaxes = [*PLAIN, *LOSSLESS]
    return make_dicom(pixels, syntaxes[rng.integers(len(syntaxes))]), pixels


def _text_bomb(rng: np.random.Generator) -> Made:
    content, pixels = _gray(rng)
    return _add_chunk(content, b"zTXt", b"Comment\0\0" + _pack_zeros(100, zlib.MAX_WBITS)), pixels


def _cut(rng: np.random.Generator) -> Made:
    content = (_gray, _rgba, _sixteen_bits, _jpeg)[rng.integers(4)](rng)[0]
    return content[: int(rng.integers(1, len(content) - 20))], None


def _flip(rng: np.random.Generator) -> Made:
    content = bytearray((_gray, _rgba, _sixteen_bits)[rng.integers(3)](rng)[0])
    content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))  # one bit: no checksum misses that
    return bytes(content), None


def _empty(rng: np.random.Generator) -> Made:
    return b"", None


def _noise(rng: np.random.Generator) -> Made:
    return rng.bytes(int(rng.integers(1, 3000))), None


def _text(rng: np.random.Generator) -> Made:
    return b"<html>404 Not Found</html>" * int(rng.integers(1, 99)), None


def _other_format(rng: np.random.Generator) -> Made:
    return _encode(Image.fromarray(_draw(rng)), ("BMP", "GIF", "TIFF")[rng.integers(3)]), None


def _png_bomb(rng: np.random.Generator) -> Made:
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, int(rng.choice([0, 2, 6])), 0, 0, 0)
    data = _chunk(b"IDAT", zlib.compress(bytes(10**6)))
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + data + _chunk(b"IEND", b""), None


def _jpeg_bomb(rng: np.random.Generator) -> Made:
    content = bytearray(_encode(Image.fromarray(_draw(rng)), "JPEG"))
    place = content.index(b"\xff\xc0") + 5
    content[place : place + 4] = struct.pack(">HH", 50_000, 50_000)
    return bytes(content), None


def _short_stream(rng: np.random.Generator) -> Made:
    header = struct.pack(">IIBBBBB", 64, 64, 8, 0, 0, 0, 0)
    data = _chunk(b"IDAT", zlib.compress((b"\0" + b"\x40" * 64) * int(rng.integers(64))))
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + data + _chunk(b"IEND", b""), None


def _print_colours(rng: np.random.Generator) -> Made:
    return _encode(Image.fromarray(_draw(rng)).convert("CMYK"), "JPEG"), None


CONTENTS: dict[str, Callable[[np.random.Generator], Made]] = {
    "good gray": _gray,
    "good RGBA": _rgba,
    "good 16 bits": _sixteen_bits,
    "good JPEG": _jpeg,
    "good DICOM": _dicom,
    "good text bomb": _text_bomb,
    "cut": _cut,
    "bit flipped": _flip,
    "empty": _empty,
    "noise": _noise,
    "text": _text,
    "other format": _other_format,
    "PNG bomb": _png_bomb,
    "JPEG bomb": _jpeg_bomb,
    "short stream": _short_stream,
    "print colours": _print_colours,
}
SPECIAL = ("folder", "dangling link", "link to itself", "link outside", "pipe", "huge", "unreadable", "large text")
"""What depends on more than content: one of each."""


def write_damaged_images(folder: Path, n: int, seed: int) -> pd.DataFrame:
    """Write good and bad image files, all called ``.png``, ``.jpg`` or ``.dcm`` whatever they hold.

    A link leads to a good image outside of ``folder``, beside it. Where nothing is unreadable, as for root, another
    good image stands in.

    Args:
        folder: Made here.
        n: Files, at least 30: one of each kind, the rest in turn.
        seed: The same one makes the same files.

    Returns:
        ``file`` (its name), ``good`` (whether it can be used), ``kind``, and ``digest``: ``hash_pixels`` of what a
        good one decodes to, else empty.
    """
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    rows = []
    for number in range(n):
        kind = SPECIAL[number] if number < len(SPECIAL) else [*CONTENTS][number % len(CONTENTS)]
        path = folder / f"{number:05d}.{('png', 'jpg', 'dcm')[rng.integers(3)]}"
        pixels = _write_special(path, kind, rng) if kind in SPECIAL else _write(path, CONTENTS[kind](rng))
        digest = "" if pixels is None else hash_pixels(pixels)
        rows.append({"file": path.name, "good": pixels is not None, "kind": kind, "digest": digest})
    return pd.DataFrame(rows)


def _write(path: Path, made: Made) -> Pixels | None:
    path.write_bytes(made[0])
    return made[1]


def _write_special(path: Path, kind: str, rng: np.random.Generator) -> Pixels | None:
    content, pixels = _gray(rng)
    if kind == "folder":
        path.mkdir()
    elif kind == "dangling link":
        path.symlink_to("nowhere.png")
    elif kind == "link to itself":
        path.symlink_to(path.name)
    elif kind == "link outside":
        outside = path.parent.with_name(path.parent.name + "-outside.png")
        outside.write_bytes(content)
        path.symlink_to(outside)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "huge":
        path.touch()
        os.truncate(path, 2**30)  # takes no space
    elif kind == "large text":
        return _write(path, (_add_chunk(content, b"tEXt", b"Comment\0" + bytes(10**8)), pixels))
    else:
        path.write_bytes(content)
        if os.geteuid() == 0:
            return pixels
        path.chmod(0)
    return None


# DICOM


def write_malformed_dicoms(folder: Path, n: int, seed: int) -> pd.DataFrame:
    """Write malformed DICOM files.

    Returns:
        ``file``, ``kind`` and ``bad``: whether it must be refused. A flipped bit can also make a file of other pixels.
    """
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    rows = []
    for number in range(n):
        kind = [*MALFORMED][number % len(MALFORMED)]
        if kind == "deflate bomb" and number > 5 * len(MALFORMED):  # each takes a while to refuse
            kind = "cut"
        bad, make = MALFORMED[kind]
        (folder / f"{number:05d}.dcm").write_bytes(make(rng))
        rows.append({"file": f"{number:05d}.dcm", "kind": kind, "bad": bad})
    return pd.DataFrame(rows)


def make_any_dicom(rng: np.random.Generator, syntaxes: list[Any] | None = None, **attributes: Any) -> bytes:
    """A good one with all that a decoder looks at."""
    syntaxes = syntaxes or [*PLAIN, *LOSSLESS]
    window = {"WindowCenter": "2000", "WindowWidth": "3000", "RescaleSlope": "1.5", "RescaleIntercept": "-10"}
    stored = draw_radiograph(int(rng.integers(8, 60)), int(rng.integers(8, 60)), 12, seed=int(rng.integers(2**31)))
    return make_dicom(stored, syntaxes[rng.integers(len(syntaxes))], BitsStored=12, **window, **attributes)


def flip_bits(content: bytes, rng: np.random.Generator, start: int = 132, stop: int | None = None) -> bytes:
    """A few bits wrong, between two places."""
    odd = bytearray(content)
    for _ in range(int(rng.choice([1, 1, 2, 5, 30]))):
        odd[rng.integers(start, stop or len(odd))] ^= 1 << int(rng.integers(8))
    return bytes(odd)


def find_pixels(content: bytes) -> int:
    """Where the element of the pixels begins, or the data set where it cannot be found."""
    return max(content.rfind(b"\xe0\x7f\x10\0"), content.rfind(b"\x7f\xe0\0\x10"), 133)


def _flip_header(rng: np.random.Generator) -> bytes:
    content = make_any_dicom(rng)
    return flip_bits(content, rng, stop=find_pixels(content) + 12)


def _flip_codestream(rng: np.random.Generator) -> bytes:
    content = make_any_dicom(rng, LOSSLESS)
    return flip_bits(content, rng, start=find_pixels(content))


def _cut_dicom(rng: np.random.Generator) -> bytes:
    content = make_any_dicom(rng)
    return content[: rng.integers(132, len(content) - 20)]


def _wrong_length(rng: np.random.Generator) -> bytes:
    content = bytearray(make_any_dicom(rng, PLAIN[1:2]))
    names = [b"\x28\0\x10\0US", b"\x28\0\x50\x10DS", b"\x10\0\x10\0PN", b"\x28\0\x04\0CS"]
    place = content.index(names[rng.integers(len(names))]) + 6
    content[place : place + 2] = rng.bytes(2) if rng.integers(4) == 0 else bytes([rng.integers(16), 0])
    return bytes(content)


def _wrong_vr(rng: np.random.Generator) -> bytes:
    content = bytearray(make_any_dicom(rng, PLAIN[1:2]))
    place = content.index((b"\x28\0\x10\0US", b"\x28\0\x11\0US", b"\xe0\x7f\x10\0OW")[rng.integers(3)]) + 4
    content[place : place + 2] = (b"UN", b"SQ", b"PN", b"OW", b"\0\0", b"ZZ")[rng.integers(6)]
    return bytes(content)


def _absurd(rng: np.random.Generator) -> bytes:
    changes: list[dict[str, Any]] = [
        {"Rows": 65535, "Columns": 65535},
        {"Rows": 0},
        {"Columns": 60_000},
        {"BitsAllocated": 65535},
        {"BitsAllocated": 1},
        {"SamplesPerPixel": 65535},
        {"NumberOfFrames": 999_999_999},
        {"NumberOfFrames": -1},
    ]
    content = make_dataset(draw_radiograph(), BitsStored=12)
    for name, value in changes[rng.integers(len(changes))].items():
        setattr(content, name, value)
    return save(content)


def _split_header(content: bytes) -> tuple[bytes, bytes]:
    length = 132 + 12 + int.from_bytes(content[140:144], "little")
    return content[:length], content[length:]


def _deflate_bomb(rng: np.random.Generator) -> bytes:
    header, _ = _split_header(make_any_dicom(rng, PLAIN[3:]))
    return header + _pack_zeros(512, -zlib.MAX_WBITS)


@cache
def _pack_zeros(n_mib: int, window_bits: int) -> bytes:
    stream = zlib.compressobj(1, zlib.DEFLATED, window_bits)
    return b"".join(stream.compress(bytes(2**20)) for _ in range(n_mib)) + stream.flush()


def _codestream_bomb(rng: np.random.Generator) -> bytes:
    dataset = make_dataset(draw_radiograph(), LOSSLESS[rng.integers(3)], BitsStored=12)
    codestream = bytearray(dataset.PixelData[8 + 4 + 8 :])
    for marker, place, form in ((b"\xff\xc3", 5, ">HH"), (b"\xff\xf7", 5, ">HH"), (b"\xff\x51", 6, ">II")):
        found = codestream.find(marker, 0, 64)
        if found >= 0:
            struct.pack_into(form, codestream, found + place, 50_000, 50_000)
            if marker == b"\xff\x51":
                struct.pack_into(form, codestream, found + 22, 50_000, 50_000)
    set_codestream(dataset, bytes(codestream))
    return save(dataset)


def _nest(rng: np.random.Generator) -> bytes:
    header, elements = _split_header(make_any_dicom(rng, PLAIN[:1]))
    opening = b"\x08\0\x40\x11\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    return header + opening * 10_000 + elements


def _undefined_length(rng: np.random.Generator) -> bytes:
    content = bytearray(make_any_dicom(rng, PLAIN[:1]))
    place = content.index((b"\x28\0\x10\0", b"\x28\0\x50\x10", b"\x10\0\x10\0")[rng.integers(3)]) + 4
    content[place : place + 4] = b"\xff\xff\xff\xff"
    return bytes(content)


def _odd_fragments(rng: np.random.Generator) -> bytes:
    content = make_any_dicom(rng, LOSSLESS)
    start = find_pixels(content) + 12
    return content[:start] + rng.bytes(int(rng.integers(0, 40))) + content[start + int(rng.integers(0, 40)) :]


def _shuffle(rng: np.random.Generator) -> bytes:
    content = make_any_dicom(rng)
    ends = sorted(rng.integers(132, len(content), 2))
    parts = [content[: ends[0]], content[ends[1] :], content[ends[0] : ends[1]]]
    return b"".join(parts)


MALFORMED: dict[str, tuple[bool, Callable[[np.random.Generator], bytes]]] = {
    "bits of the header flipped": (False, _flip_header),
    "bits of the codestream flipped": (False, _flip_codestream),
    "bits flipped anywhere": (False, lambda rng: flip_bits(make_any_dicom(rng), rng)),
    "cut": (True, _cut_dicom),
    "wrong length": (False, _wrong_length),
    "wrong representation": (False, _wrong_vr),
    "absurd numbers": (True, _absurd),
    "deflate bomb": (True, _deflate_bomb),
    "codestream bomb": (True, _codestream_bomb),
    "sequences without end": (True, _nest),
    "undefined length": (True, _undefined_length),
    "odd fragments": (False, _odd_fragments),
    "parts exchanged": (False, _shuffle),
    "no data set": (True, lambda rng: bytes(128) + b"DICM" + rng.bytes(int(rng.integers(0, 99)))),
}


# Under watch


def decode_folder(folder: Path) -> pd.DataFrame:
    """Decode each file of a folder as a store does.

    Returns:
        ``file``, ``outcome`` (``decoded``, ``refused``, or what should not happen), ``reason``, ``digest``.
    """
    from cxrlit.data.image_files import DiskFiles
    from cxrlit.data.image_io.decode import decode_pixels, read_file, resize_square

    files = DiskFiles(folder)
    rows = []
    for name in sorted(os.listdir(folder)):
        faulthandler.dump_traceback_later(FILE_SECONDS, exit=True)
        outcome, reason, digest = "decoded", "", ""
        try:
            found = files.find(name)
            if isinstance(found, str):
                raise ValueError(found)
            pixels = decode_pixels(read_file(Path(found[0])))
            digest = hash_pixels(pixels)
            if resize_square(pixels, 64, "pad").shape != (64, 64):
                outcome = "not a square"
        except Exception as error:
            outcome = "refused" if type(error) is ValueError else type(error).__name__
            reason = str(error)
        faulthandler.cancel_dump_traceback_later()
        rows.append({"file": name, "outcome": outcome, "reason": reason, "digest": digest})
    return pd.DataFrame(rows)


def measure_peak() -> float:
    """Largest memory of this process so far, MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage also counts the process that this one was forked from
        [line] = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


if __name__ == "__main__":
    faulthandler.enable()
    watched = Path(sys.argv[1])
    decode_folder(watched).to_csv(watched.with_name(watched.name + "-outcomes.csv"), index=False)
    print(measure_peak())
