"""What a pickle names, read without running it: a file of weights is judged by that before it is opened."""

import io
import pickletools
import re
import shlex
from pathlib import Path
from typing import NamedTuple

from cxrlit.core.errors import CheckpointError

MAX_OPCODES = 4_000_000
"""A pickle of DenseNet121 has 30,000; each may make an object, so this bounds memory and time."""

MAX_NAMES = 1000

MAX_COPIES = 10_000_000
"""How many values the calls of a pickle may copy: a call takes a tuple that stands there once, however often."""

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
"""``torch.save`` writes none of them, unless it is told to take another protocol than its own."""

PLAIN = re.compile(
    r"torch\.(\w*Storage|device|storage\.\w+|bfloat16|bool|float\d+|u?int\d+|complex\d+)"
    r"|torch\._utils\._rebuild_(tensor|tensor_v[23]|parameter|meta_tensor_no_storage)"
    r"|torch\.serialization\._get_layout|torch\.nn\.parameter\.Parameter|collections\.OrderedDict"
)
"""Names of what ``torch.load(weights_only=True)`` may build here: tensors and ordered dicts. It builds more, which is
as large as a number says (``bytearray``, ``Tensor``, quantized tensors), or copies what it is given as often as it is
called (``set``, ``Counter``, ``torch.Size`` and so sparse tensors, ``_codecs.encode``, attributes of a tensor)."""

KNOWN = re.compile(
    rf"{PLAIN.pattern}|(torch|torchvision\.models|torchxrayvision|numpy|pytorch_lightning|lightning|lightning_fabric"
    r"|omegaconf)\.[\w.]+|argparse\.Namespace|pathlib\.\w*Path|typing\.Any|collections\.\w+|_codecs\.encode"
    r"|(builtins|__builtin__)\.(dict|list|tuple|set|int|float|str|bool|bytearray|complex|object|slice|range|frozenset|type)"
)
"""Names that a pickled network or a training's settings hold. They stand for records that do nothing
(``pickled_module``): nothing of that name is imported."""

CONVERT = (
    "import torch; x = torch.load({source!r}, 'cpu', weights_only=False); "
    "x = next((x[k] for k in ('state_dict', 'model_state', 'model') if isinstance(x, dict) and k in x), x); "
    "torch.save(getattr(x, 'state_dict', lambda: x)(), {target!r})"
)
"""A program that the user runs where the classes of the file can be imported, and who trusts the file."""


class PickleScan(NamedTuple):
    """What a pickle says.

    Attributes:
        names: Dotted names in it.
        copies: Whether an ordered dict is made of another, or states are copied often, which fills any memory.
    """

    names: set[str]
    copies: bool


def scan_pickle(stream: io.BytesIO, what: str) -> PickleScan:
    """Scan the pickle at the stream's place, which ends behind it.

    Args:
        stream: Bytes.
        what: What to call the file in messages.

    Raises:
        CheckpointError: It is no pickle as ``torch.save`` writes it, or a very large one.

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
    except Exception:  # bytes that are no pickle make its reader raise anything
        raise CheckpointError(f"{what}: refused: it is damaged or no file of weights") from None
    return PickleScan(names, copies.makes_dict or copies.n_states * copies.n_opcodes > MAX_COPIES)


def is_plain(scan: PickleScan) -> bool:
    """Whether ``torch.load(weights_only=True)`` builds all of it, and it takes no more memory than the file."""
    return not scan.copies and all(PLAIN.fullmatch(name) for name in scan.names)


class _Copies:
    """How much the calls of a pickle copy, from above: each may be given its longest tuple, each state all of it."""

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
    """A pickle names nothing else than tensors, plain types and modules of known packages.

    Raises:
        CheckpointError: It does; says how to convert the file.
    """
    unknown = sorted(name for name in names if not KNOWN.fullmatch(name))
    if unknown:
        raise CheckpointError(
            f"{what}: refused: it holds more than plain types: {unknown[0][:80]}, which would have to be imported. "
            f"If you trust the file, convert it once, where that can be imported: {format_conversion(path)}"
        )


def format_conversion(path: Path) -> str:
    """The command that makes a state dict of a pickled module; it runs what the file says."""
    target = path.with_name(f"{path.stem}-weights.pth")
    return f"python -c {shlex.quote(CONVERT.format(source=str(path), target=str(target)))}"
