"""Pickles of a few bytes that fill any memory, here with small numbers: what matters is that they are not built."""

import pickle
import struct
import zipfile
from pathlib import Path


def _write_text(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text)) + text.encode()


_ENCODE = b"c_codecs\nencode\n"
_HEX = _ENCODE + _write_text("a") + _write_text("latin1") + b"\x86Rq\x01"
_HEX += (_ENCODE + b"h\x01" + _write_text("hex") + b"\x86Rq\x01") * 3
_LIST = pickle.dumps([(1, None), (2, None)], protocol=2)[2:-1]
_DICT = b"ccollections\nOrderedDict\n"

BOMBS = {
    "text in hex again and again": b"(" + _HEX + b"t",
    "bytes by their number": b"cbuiltins\nbytearray\nK\x05\x85R",
    "ordered dicts of a list": b"(" + _DICT + b"qc" + (_LIST + b"\x85R") + (b"hc" + _LIST + b"\x85R") * 2 + b"t",
    "an ordered dict by way of a call": b"ctorch._tensor\n_rebuild_from_type_v2\n("
    + _DICT
    + b"N"
    + _LIST
    + b"\x85N"
    + b"tR",
    "counters": b"ccollections\nCounter\n" + _LIST + b"\x85R",
    "sets": b"c__builtin__\nset\n" + _LIST + b"\x85R",
    "sizes": b"ctorch\nSize\n](K\x01K\x02e\x85R",
}
"""Values of a pickle, by what they are."""


def write_bomb(path: Path, name: str) -> None:
    """``{"a": the bomb}``."""
    write_pickled(path, b"}" + _write_text("a") + BOMBS[name] + b"s")


def write_pickled(path: Path, value: bytes) -> None:
    """A file as ``torch.save`` writes it."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + value + b".")
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
