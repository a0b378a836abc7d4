"""What a pickle names, read without running it: a file of weights is judged by that before it is opened."""

import io
import pickletools
import re
import shlex
from pathlib import Path

from cxrlit.core.errors import CheckpointError

MAX_OPCODES = 4_000_000
"""A pickle of DenseNet121 has 30,000; each may make an object, so this bounds memory and time."""

MAX_NAMES = 1000

OTHER_OPCODES = frozenset({"STACK_GLOBAL", "INST", "OBJ", "EXT1", "EXT2", "EXT4", "NEWOBJ_EX", "PERSID", "BYTEARRAY8"})
"""``torch.save`` writes none of them, unless it is told to take another protocol than its own."""

PLAIN = re.compile(
    r"torch\.(\w*Storage|Size|device|storage\.\w+|bfloat16|bool|float\d+|u?int\d+|complex\d+)"
    r"|torch\._utils\._rebuild_\w+|torch\._tensor\._rebuild_from_type_v2|torch\.serialization\._get_layout"
    r"|torch\.nn\.parameter\.Parameter|collections\.(OrderedDict|Counter)|_codecs\.encode"
    r"|(builtins|__builtin__)\.set"
)
"""Names of what ``torch.load(weights_only=True)`` builds: tensors and plain types. Without ``bytearray`` and
``Tensor``, which it builds too: called with a number, they are as large as that says."""

KNOWN = re.compile(
    rf"{PLAIN.pattern}|(torch|torchvision\.models|torchxrayvision|numpy|pytorch_lightning|lightning|lightning_fabric"
    r"|omegaconf)\.[\w.]+|argparse\.Namespace|pathlib\.\w*Path|typing\.Any|collections\.\w+"
    r"|(builtins|__builtin__)\.(dict|list|tuple|int|float|str|bool|bytearray|complex|object|slice|range|frozenset|type)"
)
"""Names that a pickled network or a training's settings hold. They stand for records that do nothing
(``pickled_module``): nothing of that name is imported."""

CONVERT = (
    "import torch; x = torch.load({source!r}, 'cpu', weights_only=False); "
    "x = next((x[k] for k in ('state_dict', 'model_state', 'model') if isinstance(x, dict) and k in x), x); "
    "torch.save(getattr(x, 'state_dict', lambda: x)(), {target!r})"
)
"""A program that the user runs where the classes of the file can be imported, and who trusts the file."""


def scan_pickle(stream: io.BytesIO, what: str) -> set[str]:
    """The dotted names in the pickle at the stream's place, which ends behind it.

    Args:
        stream: Bytes.
        what: What to call the file in messages.

    Raises:
        CheckpointError: It is no pickle as ``torch.save`` writes it, or a very large one.

    >>> import pickle
    >>> sorted(scan_pickle(io.BytesIO(pickle.dumps({"a": Path("x")}, protocol=2)), "it"))
    ['pathlib.PosixPath']
    """
    names: set[str] = set()
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
    except CheckpointError:
        raise
    except Exception:  # bytes that are no pickle make its reader raise anything
        raise CheckpointError(f"{what}: refused: it is damaged or no file of weights") from None
    return names


def is_plain(names: set[str]) -> bool:
    """Whether ``torch.load(weights_only=True)`` builds all of them."""
    return all(PLAIN.fullmatch(name) for name in names)


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
    target = path.with_name(f"{path.name.partition('.')[0]}-weights.pth")
    return f"python -c {shlex.quote(CONVERT.format(source=str(path), target=str(target)))}"
