"""Reads the weights of a legacy (not zipped) PyTorch `.pth` file, executing nothing of it.

The format is that of `torch.save` before version 1.6 (pytorch/pytorch, `torch/serialization.py`,
`_legacy_save`): pickles of a magic number, a protocol version, facts of the machine, the objects
and the list of the storages' keys; then each storage's length and numbers.
"""

import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
_STORAGES = {"FloatStorage": "<f4", "LongStorage": "<i8"}


def read_weights(path: Path, entry: str | None = None) -> dict[str, npt.NDArray[Any]]:
    """The tensors of a pickled state dict by name, in the file's order.

    `entry` names the state dict in a checkpoint that holds others beside it (an optimizer's, counters).
    """
    with path.open("rb") as file:
        if (_load(file), _load(file)) != (MAGIC, PROTOCOL):
            raise pickle.UnpicklingError(f"{path.name} is not a legacy PyTorch file")
        facts = _load(file)
        if not (isinstance(facts, dict) and facts.get("little_endian") is True):
            raise pickle.UnpicklingError(f"{path.name} is not little-endian")
        unpickler = _RestrictedUnpickler(file)
        tensors = unpickler.load()
        if entry is not None:
            tensors = tensors.get(entry) if isinstance(tensors, dict) else None
        if not _all_tensors(tensors):
            raise pickle.UnpicklingError(f"{path.name} holds more than a dict of tensors")
        storages = {key: _read_storage(file, unpickler.dtypes[key]) for key in _load(file)}
    return {name: tensor.view(storages) for name, tensor in tensors.items()}


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: str


@dataclass(frozen=True)
class _Tensor:
    """A tensor as pickled: which numbers of which storage; all in numbers, not bytes."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def view(self, storages: Mapping[str, bytes]) -> npt.NDArray[Any]:
        """The tensor's numbers; NumPy refuses strides that leave the storage."""
        dtype = np.dtype(self.storage.dtype)
        strides = tuple(stride * dtype.itemsize for stride in self.strides)
        offset = self.offset * dtype.itemsize
        return np.ndarray(self.shape, dtype, storages[self.storage.key], offset, strides)


class _RestrictedUnpickler(pickle.Unpickler):
    """Knows the four globals that a file of float and long tensors needs; refuses every other."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self.dtypes: dict[str, str] = {}
        """Of the storages that were referred to, by their keys: all that the file holds."""

    def find_class(self, module: str, name: str) -> Callable[..., object] | str:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return self._tensor
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        raise pickle.UnpicklingError(f"the file asks for {module}.{name}, which is refused")

    def persistent_load(self, pid: Any) -> _Storage:
        known = _STORAGES.values()
        match pid:
            case ("storage", str(dtype), str(key), str(), int(), None) if dtype in known:
                self.dtypes[key] = dtype
                return _Storage(key, dtype)
        raise pickle.UnpicklingError(f"unknown reference {pid!r}")

    def _tensor(
        self,
        storage: _Storage,
        offset: int,
        shape: tuple[int, ...],
        strides: tuple[int, ...],
        requires_grad: bool,
        backward_hooks: object,
    ) -> _Tensor:
        """Stands for `torch._utils._rebuild_tensor_v2`."""
        return _Tensor(storage, offset, shape, strides)


def _all_tensors(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(item, _Tensor) for item in value.values())


def _load(file: BinaryIO) -> Any:
    return _RestrictedUnpickler(file).load()


def _read_storage(file: BinaryIO, dtype: str) -> bytes:
    """One storage: its count as int64, then its numbers."""
    size = int.from_bytes(file.read(8), "little") * np.dtype(dtype).itemsize
    data = file.read(size)
    if len(data) != size:
        raise pickle.UnpicklingError("the file ends within its tensors")
    return data
