"""Read the tensors of a pickled network without running its code.

Programs that save a whole module (torchxrayvision, jrzech/reproduce-chexnet) write a pickle that names its classes.
An allow-list for ``torch.load(weights_only=True)`` is not enough: it refuses classes in files of torch before 1.6, and
it calls every class on the list with arguments from the file.
``torchxrayvision.models.DenseNet(weights="densenet121-res224-all", cache_dir=X)`` would unpickle any file
in X. So each name is replaced by a class made on the spot, which only stores its arguments.
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
    """Stands for a class named in a pickle: stores its arguments and state, and does nothing."""

    name = ""
    args: tuple[Any, ...] = ()
    state: Any = None

    def __init__(self, *args: Any) -> None:
        self.args = args

    def __setstate__(self, state: Any) -> None:
        self.state = state


class MappingRecord(Record, dict[Any, Any]):
    """A ``Record`` of a mapping type, filled like a dict."""


class StorageRecord(Record):
    """A block of numbers; its arguments are type, key, device and number of elements."""


class ModuleState(dict[str, Tensor]):
    """The state dict of a pickled module.

    Attributes:
        class_name: Dotted name of its class.
    """

    class_name = ""


class InertUnpickler(pickle.Unpickler):
    """Builds a ``Record`` for every name in a pickle.

    Attributes:
        dtypes: The type of each storage, by its key.
    """

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.dtypes: dict[str, torch.dtype] = {}
        self._classes: dict[str, type[Record]] = {}

    def find_class(self, module: str, name: str) -> type[Record]:
        """Return a ``Record`` class for any name; nothing is imported."""
        full = f"{module}.{name}"
        if full not in self._classes:
            kind = MappingRecord if full in MAPPINGS else Record
            self._classes[full] = type("Named", (kind,), {"name": full})
        return self._classes[full]

    def persistent_load(self, saved: Any) -> Any:
        """Record the type of a storage and return a ``StorageRecord``.

        Raises:
            UnpicklingError: It is neither a module nor a storage, or its type is unknown.
        """
        if saved[0] == "module":  # with its source, in files of torch before 1.6
            return saved[1]
        if saved[0] != "storage" or not isinstance(saved[2], str):
            raise pickle.UnpicklingError("neither a module nor a storage")
        kind = saved[1].name.rpartition(".")[2]
        if kind not in DTYPES:
            raise pickle.UnpicklingError(f"numbers of an unknown type, {kind}")
        self.dtypes[saved[2]] = DTYPES[kind]
        return StorageRecord(*saved[1:])


class Converter:
    """Converts records to plain types and tensors; anything else becomes None.

    Args:
        read_storage: Returns the numbers of a storage, flat, by its key.
    """

    def __init__(self, read_storage: Callable[[str], Tensor]) -> None:
        self.read_storage = functools.cache(read_storage)
        self.n_values = 0

    def convert(self, value: Any, depth: int = 0) -> Any:
        """Convert a value to a dict with text keys, a module's state dict, a tensor, a text or None."""
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
        """Add the parameters and buffers of a module and its submodules."""
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
        """The module inside a ``DataParallel`` or similar wrapper."""
        if not module.name.startswith("torch.nn.parallel."):
            return module
        inner = dict(self._list_items(module.state["_modules"], depth)).get("module")
        return inner if isinstance(inner, Record) else module

    def _list_items(self, mapping: Any, depth: int) -> list[tuple[Any, Any]]:
        """Keys and values of a mapping; Python 2 pickles them as a list argument."""
        if not isinstance(mapping, dict):
            return []
        given = mapping.args[0] if isinstance(mapping, MappingRecord) and mapping.args else []
        pairs = given if isinstance(given, list) else []
        self._count(depth, len(pairs) + len(mapping))
        return [*((name, item) for name, item in pairs), *dict.items(mapping)]

    def _count(self, depth: int, n_values: int = 1) -> None:
        """Bound depth and number of values: a value that is referenced often is read each time."""
        self.n_values += n_values
        if self.n_values > MAX_VALUES or depth > MAX_DEPTH:
            raise ValueError("too many modules in each other")
