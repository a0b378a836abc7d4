"""The tensors of a pickled network, of which no code runs.

Programs that save a whole module (torchxrayvision, jrzech/reproduce-chexnet) write a pickle that names its classes.
An allow-list for ``torch.load(weights_only=True)`` would not do: it refuses classes in files of torch before 1.6, and
it calls whatever is on the list with the arguments that the file gives.
``torchxrayvision.models.DenseNet(weights="densenet121-res224-all", cache_dir=X)`` would unpickle a file in X, whatever
it does. So each name stands for a class made on the spot, which keeps what it is given.
"""

import functools
import io
import pickle
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

MAX_VALUES, MAX_DEPTH = 200_000, 60

DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}

MAPPINGS = ("collections.OrderedDict", "collections.defaultdict", "collections.Counter")


class Record:
    """What a name in a pickle stands for: it keeps its arguments and its state, and does nothing."""

    name = ""
    args: tuple[Any, ...] = ()
    state: Any = None

    def __init__(self, *args: Any) -> None:
        self.args = args

    def __setstate__(self, state: Any) -> None:
        self.state = state


class MappingRecord(Record, dict[Any, Any]):
    """The same for a mapping, which is filled like one."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.update(args[0] if args and isinstance(args[0], list) else ())  # as Python 2 pickles them


class StorageRecord(Record):
    """A block of numbers: its arguments are the type, the key, the device and the number of elements."""


class ModuleState(dict[str, Tensor]):
    """The state dict of a pickled module.

    Attributes:
        class_name: Dotted name of its class.
    """

    class_name = ""


class InertUnpickler(pickle.Unpickler):
    """Builds records, whatever a pickle names.

    Attributes:
        dtypes: The type of each storage, by its key.
    """

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.dtypes: dict[str, torch.dtype] = {}
        self._classes: dict[str, type[Record]] = {}

    def find_class(self, module: str, name: str) -> type[Record]:
        full = f"{module}.{name}"
        if full not in self._classes:
            kind = MappingRecord if full in MAPPINGS else Record
            self._classes[full] = type("Named", (kind,), {"name": full})
        return self._classes[full]

    def persistent_load(self, saved: Any) -> Any:
        if saved[0] == "module":  # a class and its source, before torch 1.6
            return saved[1]
        if saved[0] != "storage":
            raise pickle.UnpicklingError("neither a module nor a storage")
        kind = saved[1].name.rpartition(".")[2]
        if kind not in DTYPES:
            raise pickle.UnpicklingError(f"numbers of an unknown type, {kind}")
        self.dtypes[str(saved[2])] = DTYPES[kind]
        return StorageRecord(*saved[1:])


class Converter:
    """Makes plain types and tensors of records; what is neither becomes None.

    Args:
        read_storage: From a storage's key to its numbers, flat.
    """

    def __init__(self, read_storage: Callable[[str], Tensor]) -> None:
        self.read_storage = functools.cache(read_storage)
        self.n_values = 0

    def convert(self, value: Any, depth: int = 0) -> Any:
        """A value of a pickle: a dict of text keys, a module's state dict, a tensor, a text or None."""
        self._count(depth)
        if isinstance(value, Record) and isinstance(value.state, dict) and "_modules" in value.state:
            state = ModuleState()
            state.class_name = _unwrap_parallel(value).name
            self._collect(value, "", state, depth)
            return state
        if isinstance(value, dict):
            return {name: self.convert(item, depth + 1) for name, item in dict.items(value) if isinstance(name, str)}
        return self._build_tensor(value) if isinstance(value, Record) else value if isinstance(value, str) else None

    def _collect(self, module: Record, prefix: str, state: dict[str, Tensor], depth: int) -> None:
        """Add the parameters and buffers of a module and of those in it."""
        self._count(depth)
        for name, item in (*_items(module, "_parameters"), *_items(module, "_buffers")):
            self._count(depth)
            tensor = self._build_tensor(item) if isinstance(item, Record) else None
            if tensor is not None:
                state[f"{prefix}{name}"] = tensor
        for name, item in _items(module, "_modules"):
            if isinstance(item, Record):
                self._collect(item, f"{prefix}{name}.", state, depth + 1)

    def _build_tensor(self, record: Record) -> Tensor | None:
        if record.name.startswith(("torch._utils._rebuild_parameter", "torch.nn.parameter.Parameter")):
            record = record.args[0]
        if record.name not in ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"):
            return None
        storage, offset, size, stride = record.args[:4]
        _, key, _, _, *views = storage.args
        first = views[0][1] if views and views[0] is not None else 0
        return self.read_storage(str(key)).as_strided(tuple(size), tuple(stride), first + offset)  # within its bounds

    def _count(self, depth: int) -> None:
        """What is named in many places would be read as often."""
        self.n_values += 1
        if self.n_values > MAX_VALUES or depth > MAX_DEPTH:
            raise ValueError("too many modules in each other")


def _unwrap_parallel(module: Record) -> Record:
    """The module that runs on several devices."""
    inner = dict(_items(module, "_modules")).get("module") if module.name.startswith("torch.nn.parallel.") else None
    return inner if isinstance(inner, Record) else module


def _items(module: Record, kind: str) -> list[tuple[Any, Any]]:
    entries = module.state[kind]
    return list(dict.items(entries)) if isinstance(entries, dict) else []
