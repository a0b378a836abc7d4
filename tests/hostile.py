"""Files that pass for checkpoints, and would run something or write somewhere where they were trusted."""

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch


class Payload:
    """Pickled, it makes a file when it is loaded by what runs pickles."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return Path.touch, (self.canary,)


def write_pickle(path: Path, content: Any) -> None:
    path.write_bytes(pickle.dumps(content))


def write_old_torch(path: Path, content: Any) -> None:
    """As torch wrote before it wrote zip archives."""
    torch.save(content, path, _use_new_zipfile_serialization=False)


def write_whole(path: Path, content: Any) -> None:
    """An archive with the names and checksums of a checkpoint: whoever writes a payload can have them."""
    with path.open("wb") as file:
        torch.save(content, file)


def write_member(path: Path, content: Any, name: str, compression: int = zipfile.ZIP_STORED) -> None:
    """An archive with one more member, or with all of them written anew."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with zipfile.ZipFile(buffer) as whole, zipfile.ZipFile(path, "w") as archive:
        for entry in whole.infolist():
            archive.writestr(entry.filename, whole.read(entry), compression)
        if name:
            archive.writestr(name, b"evil")
