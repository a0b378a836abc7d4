"""List the names in a pickle without running it, to decide whether a weights file is safe to open."""

import io
import pickletools
import re
import shlex
from pathlib import Path
from typing import NamedTuple

from cxrlit.core.errors import CheckpointError

MAX_OPCODES = 4_000_000
"""A pickle of DenseNet121 has 30,000; each may create an object, so this bounds memory and time."""

MAX_NAMES = 1000

MAX_COPIES = 10_000_000
"""Most values that the calls of a pickle may copy: many calls can reuse one stored tuple."""

OTHER_OPCODES = frozenset(
    [
        "STACK_GLOBAL",
        "INST",
        "OBJ",
        "EXT1",
        "EXT2",
        "EXT4",
        "NEWOBJ_EX",
        "PERSID",
        "BYTEARRAY8",
        "MEMOIZE",
        "DUP",
        "POP",
        "POP_MARK",
        "EMPTY_SET",
        "ADDITEMS",
        "FROZENSET",
    ]
)
"""Opcodes that ``torch.save`` never writes with its default protocol."""

PLAIN = re.compile(
    r"torch\.(\w*Storage|device|storage\.\w+|bfloat16|bool|float\d+|u?int\d+|complex\d+)"
    r"|torch\._utils\._rebuild_(tensor|tensor_v[23]|parameter|meta_tensor_no_storage)"
    r"|torch\.serialization\._get_layout|torch\.nn\.parameter\.Parameter|collections\.OrderedDict"
)
"""Names that ``torch.load(weights_only=True)`` may build here: tensors and ordered dicts. torch allows more, which can
fill memory: types whose size is a number in the file (``bytearray``, ``Tensor``, quantized tensors), and calls that
copy their input (``set``, ``Counter``, ``torch.Size`` and so sparse tensors, ``_codecs.encode``, tensor attributes)."""

KNOWN = re.compile(
    rf"{PLAIN.pattern}|(torch|torchvision\.models|torchxrayvision|numpy|pytorch_lightning|lightning|lightning_fabric"
    r"|omegaconf)\.[\w.]+|argparse\.Namespace|pathlib\.\w*Path|typing\.Any|collections\.\w+|_codecs\.encode"
    r"|(builtins|__builtin__)\.(dict|list|tuple|set|int|float|str|bool|bytearray|complex|object|slice|range|frozenset|type)"
)
"""Names that occur in a pickled network or in training settings. Each is read as an inert record
(``pickled_module``); none is imported."""

CONVERT = (
    "import torch; x = torch.load({source!r}, 'cpu', weights_only=False); "
    "x = next((x[k] for k in ('state_dict', 'model_state', 'model') if isinstance(x, dict) and k in x), x); "
    "torch.save(getattr(x, 'state_dict', lambda: x)(), {target!r})"
)
"""A program for a user who trusts the file, to run where the file's classes can be imported."""


class PickleScan(NamedTuple):
    """The content of a pickle.

    Attributes:
        names: Dotted names in it.
        copies: Whether it copies ordered dicts or states so often that it could fill any memory.
    """

    names: set[str]
    copies: bool


def scan_pickle(stream: io.BytesIO, what: str) -> PickleScan:
    """Scan the pickle at the stream's position and move the stream past it.

    Args:
        stream: Bytes.
        what: What to call the file in messages.

    Raises:
        CheckpointError: It is not a pickle as ``torch.save`` writes it, or it is too large.

    >>> import pickle
    >>> scan_pickle(io.BytesIO(pickle.dumps({"a": Path("x")}, protocol=2)), "it")
    PickleScan(names={'pathlib.PosixPath'}, copies=False)
    """
    names: set[str] = set()
    copies = _Copies()
    try:
        for number, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            is_far = opcode.name in ("LONG_BINPUT", "LONG_BINGET", "PUT") and int(str(argument)) > MAX_OPCODES
            if number > MAX_OPCODES or is_far or len(names) > MAX_NAMES:
                raise CheckpointError(f"{what}: refused: its pickle is larger than that of any file of weights")
            if opcode.name in OTHER_OPCODES:
                raise CheckpointError(
                    f"{what}: refused: torch.save would not write {opcode.name} into it: save it again, without "
                    "pickle_protocol"
                )
            if opcode.name == "GLOBAL":
                names.add(str(argument).replace(" ", "."))
            copies.add(opcode.name, argument)
        if copies.n_calls * copies.longest > MAX_COPIES:
            raise CheckpointError(f"{what}: refused: it would take far more memory than the file is large")
    except CheckpointError:
        raise
    except Exception:  # on bytes that are no pickle, the reader can raise anything
        raise CheckpointError(f"{what}: refused: it is damaged or no file of weights") from None
    return PickleScan(names, copies.makes_dict or copies.n_states * copies.n_opcodes > MAX_COPIES)


def is_plain(scan: PickleScan) -> bool:
    """Whether ``torch.load(weights_only=True)`` can build all of it in no more memory than the file's size."""
    return not scan.copies and all(PLAIN.fullmatch(name) for name in scan.names)


class _Copies:
    """Upper bound of the values that a pickle copies: each call may take the longest tuple, each state all."""

    def __init__(self) -> None:
        self.n_opcodes = self.n_calls = self.n_states = self.longest = 0
        self.makes_dict = False
        self._marks: list[int] = []
        self._dicts: set[object] = set()
        self._awaited: tuple[str, ...] = ()

    def add(self, opcode: str, argument: object) -> None:
        """Take the next opcode into account."""
        self.n_opcodes += 1
        if opcode in ("BINPUT", "LONG_BINPUT", "PUT"):
            if self._awaited == ("EMPTY_TUPLE", "REDUCE"):
                self._dicts.add(argument)
            return
        if self._awaited:
            self.makes_dict |= opcode != self._awaited[0]
            self._awaited = self._awaited[1:]
        is_dict = opcode == "GLOBAL" and argument == "collections OrderedDict"
        if is_dict or (opcode in ("BINGET", "LONG_BINGET", "GET") and argument in self._dicts):
            self._awaited = ("EMPTY_TUPLE", "REDUCE")
        elif opcode == "MARK":
            self._marks.append(self.n_opcodes)
        elif opcode in ("TUPLE", "APPENDS", "SETITEMS", "LIST", "DICT") and self._marks:
            n_items = self.n_opcodes - self._marks.pop()
            self.longest = max(self.longest, n_items if opcode == "TUPLE" else 0)
        self.n_calls += opcode in ("REDUCE", "NEWOBJ", "BINPERSID")
        self.n_states += opcode == "BUILD"


def check_names(names: set[str], path: Path, what: str) -> None:
    """Check that a pickle names only tensors, plain types and modules of known packages.

    Raises:
        CheckpointError: It names something else; the message says how to convert the file.
    """
    unknown = sorted(name for name in names if not KNOWN.fullmatch(name))
    if unknown:
        raise CheckpointError(
            f"{what}: refused: it holds more than plain types: {unknown[0][:80]}, which would have to be imported. "
            f"If you trust the file, convert it once, where that can be imported: {format_conversion(path)}"
        )


def format_conversion(path: Path) -> str:
    """The command that converts a pickled module to a state dict; it runs code from the file."""
    target = path.with_name(f"{path.stem}-weights.pth")
    return f"python -c {shlex.quote(CONVERT.format(source=str(path), target=str(target)))}"
