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
        if saved[0] != "storage" or not isinstance(saved[2], str):
            raise pickle.UnpicklingError("neither a module nor a storage")
        kind = saved[1].name.rpartition(".")[2]
        if kind not in DTYPES:
            raise pickle.UnpicklingError(f"numbers of an unknown type, {kind}")
        self.dtypes[saved[2]] = DTYPES[kind]
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
            state.class_name = self._unwrap_parallel(value, depth).name
            self._collect(value, "", state, depth)
            return state
        if isinstance(value, dict):
            items = self._list_items(value, depth)
            return {name: self.convert(item, depth + 1) for name, item in items if isinstance(name, str)}
        return self._build_tensor(value) if isinstance(value, Record) else value if isinstance(value, str) else None

    def _collect(self, module: Record, prefix: str, state: dict[str, Tensor], depth: int) -> None:
        """Add the parameters and buffers of a module and of those in it."""
        self._count(depth)
        items = {kind: self._list_items(module.state[kind], depth) for kind in ("_parameters", "_buffers", "_modules")}
        for name, item in (*items["_parameters"], *items["_buffers"]):
            tensor = self._build_tensor(item) if isinstance(item, Record) else None
            if tensor is not None:
                state[f"{prefix}{name}"] = tensor
        for name, item in items["_modules"]:
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
        return self.read_storage(key).as_strided(tuple(size), tuple(stride), first + offset)  # within its bounds

    def _unwrap_parallel(self, module: Record, depth: int) -> Record:
        """The module that runs on several devices."""
        if not module.name.startswith("torch.nn.parallel."):
            return module
        inner = dict(self._list_items(module.state["_modules"], depth)).get("module")
        return inner if isinstance(inner, Record) else module

    def _list_items(self, mapping: Any, depth: int) -> list[tuple[Any, Any]]:
        """Names and values of a mapping; Python 2 pickles them as a list that the mapping is made of."""
        if not isinstance(mapping, dict):
            return []
        given = mapping.args[0] if isinstance(mapping, MappingRecord) and mapping.args else []
        pairs = given if isinstance(given, list) else []
        self._count(depth, len(pairs) + len(mapping))
        return [*((name, item) for name, item in pairs), *dict.items(mapping)]

    def _count(self, depth: int, n_values: int = 1) -> None:
        """What is named in many places would be read as often."""
        self.n_values += n_values
        if self.n_values > MAX_VALUES or depth > MAX_DEPTH:
            raise ValueError("too many modules in each other")
