"""CudaStream: a stream of an NVIDIA GPU, its memory and pinned memory of the host, and copies. Stage: executor.

ONNX Runtime's Python offers neither pinned memory for legacy providers nor copies that do not wait: `update_inplace`,
`bind_ortvalue_input` and `OrtValue.numpy` each block until their copy is done, on the default stream. So the runtime
library that ONNX Runtime has loaded anyway is called itself; a session is told to compute on the same stream.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Protocol

import numpy as np

from ortmesh.serving.executor.quiet import QUIET
from ortmesh.serving.types import Array

TO_DEVICE, TO_HOST = 1, 2
ANY_WAY = 4
"""The addresses tell where from and where to (`cudaMemcpyDefault`)."""
NON_BLOCKING = 1
"""Not ordered with the default stream, which other libraries of the process may use."""
PORTABLE = 1
"""Pinned for every context of the process."""
LIBRARIES = ("libcudart.so.13", "libcudart.so.12")
"""Of the CUDA versions for which ONNX Runtime is built; it has loaded one of them."""
NAME_BYTES = 256
"""`cudaDeviceProp` begins with the device's name, of so many bytes."""
PROPERTIES_BYTES = 1 << 14
"""More than `cudaDeviceProp` has in any version: some 1,000."""

_POINTER, _SIZE, _INT = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
_FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "cudaSetDevice": (_INT,),
    "cudaStreamCreateWithFlags": (ctypes.POINTER(_POINTER), ctypes.c_uint),
    "cudaStreamDestroy": (_POINTER,),
    "cudaStreamSynchronize": (_POINTER,),
    "cudaHostAlloc": (ctypes.POINTER(_POINTER), _SIZE, ctypes.c_uint),
    "cudaFreeHost": (_POINTER,),
    "cudaMalloc": (ctypes.POINTER(_POINTER), _SIZE),
    "cudaFree": (_POINTER,),
    "cudaMemcpyAsync": (_POINTER, _POINTER, _SIZE, _INT, _POINTER),
    "cudaMemcpy3DAsync": (_POINTER, _POINTER),
    "cudaMemsetAsync": (_POINTER, _INT, _SIZE, _POINTER),
    "cudaMemGetInfo": (ctypes.POINTER(_SIZE), ctypes.POINTER(_SIZE)),
    "cudaGetDeviceProperties": (_POINTER, _INT),
}


class _Place(ctypes.Structure):
    """`cudaPitchedPtr`."""

    _fields_ = (("address", _POINTER), ("pitch", _SIZE), ("width", _SIZE), ("rows", _SIZE))


class _Copy(ctypes.Structure):
    """`cudaMemcpy3DParms`."""

    _fields_ = (
        *(("source_array", _POINTER), ("source_at", _SIZE * 3), ("source", _Place)),
        *(("target_array", _POINTER), ("target_at", _SIZE * 3), ("target", _Place)),
        *(("extent", _SIZE * 3), ("kind", _INT)),
    )


class CudaFailed(RuntimeError):
    """A call of the CUDA runtime failed; begins with CUDA, so that it counts as the device's failure."""


class Memory(Protocol):
    """Bytes at an address that does not change while this object lives."""

    address: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Box:
    """Bytes that lie apart in memory: rows of `width` of them, `rows` in each of `slices`."""

    width: int
    rows: int
    slices: int
    pitch: int
    """From one row to the next, in bytes."""
    slice_rows: int
    """From one slice to the next, in rows of so many bytes."""


class Stream(Protocol):
    """What a runner needs of a device: memory near it and far from it, and copies in order."""

    kind: str
    """ONNX Runtime's name for the device, e.g. `cuda`."""
    device_id: int

    @property
    def name(self) -> str:
        """Which device it is, e.g. `NVIDIA H200`."""

    def pinned(self, nbytes: int) -> Memory:
        """Memory of the host that the device reads and writes by itself."""

    def memory(self, nbytes: int) -> Memory:
        """Memory of the device."""

    def to_device(self, target: int, source: int, nbytes: int) -> None:
        """Begins a copy from pinned memory."""

    def array_to_device(self, target: int, source: int, nbytes: int) -> None:
        """Copies from any memory of the host, which may change once this returns."""

    def to_host(self, target: int, source: int, nbytes: int) -> None:
        """Begins a copy to pinned memory."""

    def copy(self, target: int, source: int, box: Box) -> None:
        """Begins a copy of a box, which lies in the same way in both places: pinned memory and the device's."""

    def zero(self, target: int, nbytes: int) -> None:
        """Begins to fill memory of the device with zeros."""

    def wait(self) -> None:
        """Until everything begun on the stream is done."""

    def used(self) -> int:
        """Bytes of the device's memory that are in use, by whomever."""


@cache
def runtime(*, holding: bool = False) -> ctypes.CDLL:
    """The CUDA runtime library, its functions typed. OSError when the machine has none.

    `holding` keeps the interpreter for itself during a call: for those of microseconds. To let it go for so short a
    time is to wait for it, where other threads are busy, up to the interpreter's switch interval: 0.5 ms in a service.
    """
    library = _library(ctypes.PyDLL if holding else ctypes.CDLL)
    for name, types in _FUNCTIONS.items():
        getattr(library, name).argtypes = types
        getattr(library, name).restype = _INT
    library.cudaGetErrorString.restype = ctypes.c_char_p
    return library


def _library(load: type[ctypes.CDLL]) -> ctypes.CDLL:
    """The one that the process has already, which is ONNX Runtime's, else the newest that it can have."""
    for mode in (ctypes.DEFAULT_MODE | os.RTLD_NOLOAD, ctypes.DEFAULT_MODE):
        for name in LIBRARIES:
            try:
                return load(name, mode)
            except OSError:
                continue
    raise OSError(f"none of {', '.join(LIBRARIES)} can be loaded")


def call(name: str, *arguments: Any) -> None:
    """Calls a function of the runtime; CudaFailed with its name and the reason."""
    if status := getattr(runtime(), name)(*arguments):
        raise _failure(name, status)


def _failure(name: str, status: int) -> CudaFailed:
    reason = runtime().cudaGetErrorString(status)
    return CudaFailed(f"CUDA failure {status}: {name}: {reason.decode() if reason else 'unknown'}")


class _Block:
    """Memory that is freed with the object, when nobody records."""

    def __init__(self, allocate: str, free: str, nbytes: int, *flags: int) -> None:
        pointer = _POINTER()
        call(allocate, ctypes.byref(pointer), max(nbytes, 1), *flags)
        self.address = int(pointer.value or 0)
        self.nbytes = nbytes
        weakref.finalize(self, QUIET.free, partial(getattr(runtime(), free), self.address)).atexit = False


class CudaStream:
    """A stream of one GPU. ONNX Runtime gets `handle` as its `user_compute_stream`."""

    kind = "cuda"

    def __init__(self, device_id: int) -> None:
        self.device_id = device_id
        stream = _POINTER()
        call("cudaSetDevice", device_id)
        call("cudaStreamCreateWithFlags", ctypes.byref(stream), NON_BLOCKING)
        self.handle = int(stream.value or 0)
        weakref.finalize(self, QUIET.free, partial(runtime().cudaStreamDestroy, self.handle)).atexit = False
        self._copy = runtime(holding=True).cudaMemcpyAsync
        self._copy_box = runtime(holding=True).cudaMemcpy3DAsync

    @property
    def name(self) -> str:
        """As the driver calls the GPU."""
        properties = ctypes.create_string_buffer(PROPERTIES_BYTES)
        call("cudaGetDeviceProperties", properties, self.device_id)
        return properties.raw[:NAME_BYTES].partition(b"\0")[0].decode(errors="replace")

    def pinned(self, nbytes: int) -> Memory:
        """Page-locked memory of the host."""
        call("cudaSetDevice", self.device_id)
        return _Block("cudaHostAlloc", "cudaFreeHost", nbytes, PORTABLE)

    def memory(self, nbytes: int) -> Memory:
        """Memory of this GPU, outside ONNX Runtime's arena."""
        call("cudaSetDevice", self.device_id)
        return _Block("cudaMalloc", "cudaFree", nbytes)

    def to_device(self, target: int, source: int, nbytes: int) -> None:
        """Begins a copy; `source` must be pinned, else it waits with the interpreter held."""
        if status := self._copy(target, source, nbytes, TO_DEVICE, self.handle):
            raise _failure("cudaMemcpyAsync", status)

    def array_to_device(self, target: int, source: int, nbytes: int) -> None:
        """Copies from memory that is not pinned: CUDA copies it piece by piece through pinned memory of its own."""
        call("cudaMemcpyAsync", target, source, nbytes, TO_DEVICE, self.handle)

    def to_host(self, target: int, source: int, nbytes: int) -> None:
        """Begins a copy; `target` must be pinned, else it waits with the interpreter held."""
        if status := self._copy(target, source, nbytes, TO_HOST, self.handle):
            raise _failure("cudaMemcpyAsync", status)

    def copy(self, target: int, source: int, box: Box) -> None:
        """Begins a copy; both must be pinned or on the GPU, else it waits with the interpreter held."""
        places = (_Place(address, box.pitch, box.pitch, box.slice_rows) for address in (source, target))
        asked = _Copy(source=next(places), target=next(places), kind=ANY_WAY)
        asked.extent[:] = box.width, box.rows, box.slices
        if status := self._copy_box(ctypes.byref(asked), self.handle):
            raise _failure("cudaMemcpy3DAsync", status)

    def zero(self, target: int, nbytes: int) -> None:
        """Begins to fill it."""
        call("cudaMemsetAsync", target, 0, nbytes, self.handle)

    def wait(self) -> None:
        """Until all is done; other threads of the interpreter go on meanwhile."""
        call("cudaStreamSynchronize", self.handle)

    def used(self) -> int:
        """As the driver tells: of all processes."""
        free, total = _SIZE(), _SIZE()
        call("cudaSetDevice", self.device_id)
        call("cudaMemGetInfo", ctypes.byref(free), ctypes.byref(total))
        return total.value - free.value


def view(memory: Memory, dtype: np.dtype[Any], shape: tuple[int, ...], start: int = 0) -> Array:
    """Memory of the host, from the byte `start`, as an array of this type and shape, which keeps the memory alive."""
    return np.ndarray(shape, dtype, raw_of(memory), start)


def raw_of(memory: Memory) -> memoryview[int]:
    """Memory of the host as a buffer, which keeps it alive."""
    raw = (ctypes.c_char * memory.nbytes).from_address(memory.address)
    raw.memory = memory  # type: ignore[attr-defined]
    return memoryview(raw).cast("B")
