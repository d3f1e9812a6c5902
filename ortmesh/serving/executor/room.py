"""Room: the memory of one run on a GPU, and Plan: where the tensors of one shape lie in it. Stage: executor."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnxruntime import OrtValue

from ortmesh.serving.executor.buckets import corner, fill, fill_rest
from ortmesh.serving.executor.cuda import Memory, Stream, view
from ortmesh.serving.executor.interruptible import InterruptibleSession
from ortmesh.serving.executor.lent import rounded
from ortmesh.serving.signature import Signature, TensorInfo
from ortmesh.serving.types import Array, Tensors

BFLOAT16 = 16
"""ONNX's number of the type that NumPy lacks."""
ALIGNMENT = 256
DIRECT_BYTES = 1 << 18
"""An array of one item that is at least as large goes to the GPU from where it lies: CUDA's own way through pinned
memory is as quick as a copy of ours, and has begun to send the first piece when it copies the second."""

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]


class Room:
    """Memory at fixed addresses for runs in turn: it changes only when one needs more."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.pinned: Memory | None = None
        """Where inputs are written."""
        self.inputs: Memory | None = None
        """Where the graph reads them."""
        self.outputs: Memory | None = None
        """Where the graph writes."""

    def for_inputs(self, nbytes: int) -> tuple[Memory, Memory]:
        """(pinned, the device's) memory of at least so many bytes."""
        if self.pinned is None or self.inputs is None or self.pinned.nbytes < nbytes:
            self.pinned = self.inputs = None
            self.pinned, self.inputs = self._stream.pinned(rounded(nbytes)), self._stream.memory(rounded(nbytes))
        return self.pinned, self.inputs

    def for_outputs(self, nbytes: int) -> Memory:
        """The device's memory of at least so many bytes."""
        if self.outputs is None or self.outputs.nbytes < nbytes:
            self.outputs = None
            self.outputs = self._stream.memory(rounded(nbytes))
        return self.outputs

    def clear(self) -> None:
        """Gives all back."""
        self.pinned = self.inputs = self.outputs = None


class Plan:
    """Where inputs of one shape lie: all in one piece, so that one copy brings them."""

    def __init__(
        self,
        session: InterruptibleSession,
        stream: Stream,
        signature: Signature,
        room: Room,
        shapes: Shapes,
        apart: Sequence[str],
    ) -> None:
        self._session = session
        self._stream = stream
        self._signature = signature
        self._room = room
        self._shapes = shapes
        self.apart = apart
        """Inputs that the graph reads on the CPU though it runs on a GPU: they stay where they are."""
        near = [name for name in shapes if name not in apart]
        infos = [signature.inputs[name] for name in near]
        sizes = [nbytes_of(info, shapes[name]) for name, info in zip(near, infos, strict=True)]
        starts, self._nbytes = laid(sizes)
        pinned, self._device = room.for_inputs(self._nbytes)
        self._near = dict(zip(near, zip(starts, sizes, strict=True), strict=True))
        self._targets = {
            name: view(pinned, info.dtype, shapes[name], start)
            for name, info, start in zip(near, infos, starts, strict=True)
        }
        self._bound: dict[tuple[str, ...], Bound] = {}

    @property
    def current(self) -> bool:
        """False once the room's memory is another."""
        return self._device is self._room.inputs

    def places(self, shapes: Shapes) -> dict[str, Array]:
        """Arrays of these shapes, up to the plan's, to write inputs into."""
        return {
            name: corner(self._targets[name], shape)
            if name in self._targets
            else np.empty(shape, self._signature.inputs[name].dtype)
            for name, shape in shapes.items()
        }

    def bound(self, outputs: tuple[str, ...]) -> Bound:
        """A binding of the inputs, and of these outputs."""
        found = self._bound.get(outputs)
        if found is None:
            binding = self._session.io_binding()
            for name, (start, _) in self._near.items():
                info, shape = self._signature.inputs[name], list(self._shapes[name])
                element = BFLOAT16 if info.datatype == "BF16" else info.dtype.type
                address = self._device.address + start
                binding.bind_input(name, self._stream.kind, self._stream.device_id, element, shape, address)
            infos = [self._signature.outputs[name] for name in outputs]
            found = self._bound[outputs] = Bound(binding, self._stream, infos)
        return found

    def bind_apart(self, bound: Bound, feeds: Tensors) -> list[Any]:
        """Binds the inputs that stay where they are; what it returns must live as long as the run."""
        values = [as_value(feeds[name], self._signature.inputs[name]) for name in self.apart]
        for name, value in zip(self.apart, values, strict=True):
            bound.binding.bind_ortvalue_input(name, value)
        return values

    def send(self, feeds: Tensors) -> None:
        """Begins to copy arrays to the device, padded to the plan's shapes."""
        direct = False
        for name, target in self._targets.items():
            array = feeds[name]
            if array.nbytes >= DIRECT_BYTES and _is_the_same(array, target):
                start, nbytes = self._near[name]
                self._stream.array_to_device(self._device.address + start, array.ctypes.data, nbytes)
                direct = True
            else:
                fill(target, array, self._signature.inputs[name])
        if not direct:
            self._send_all()
            return
        for name, (start, nbytes) in self._near.items():
            if nbytes < DIRECT_BYTES or not _is_the_same(feeds[name], self._targets[name]):
                self._send(start, nbytes)

    def send_placed(self, feeds: Tensors, places: Tensors) -> None:
        """The same for what was written into its `places`, but for arrays that were put in their stead."""
        for name, target in self._targets.items():
            array, info = feeds[name], self._signature.inputs[name]
            if array is places[name]:
                fill_rest(target, array.shape, info)
            else:
                fill(target, array, info)
        self._send_all()

    def _send_all(self) -> None:
        self._send(0, self._nbytes)

    def _send(self, start: int, nbytes: int) -> None:
        if nbytes and self._room.pinned is not None:
            self._stream.to_device(self._device.address + start, self._room.pinned.address + start, nbytes)


class Bound:
    """A binding, and where its outputs lie: in the arena the first time, then where their shapes have their place."""

    def __init__(self, binding: Any, stream: Stream, infos: Sequence[TensorInfo]) -> None:
        self.binding = binding
        self._stream = stream
        self._infos = infos
        self._at: Memory | None = None
        self.shapes: list[Shape] | None = None
        """Of the outputs, once they were computed."""
        self.starts: list[int] = []
        self.nbytes = 0

    def prepare(self, room: Room, *, fixed: bool) -> None:
        """Binds the outputs, before each run; `fixed` at the places that their shapes had before, if known."""
        if not fixed or self.shapes is None:
            self._at = None
            for info in self._infos:
                self.binding.bind_output(info.name, self._stream.kind, self._stream.device_id)
        elif self._at is None or self._at is not room.outputs:
            self.fix(room)

    def fix(self, room: Room) -> None:
        """From now on the outputs have their place, until the room's memory is another."""
        assert self.shapes is not None
        self._at = room.for_outputs(self.nbytes)
        for info, shape, start in zip(self._infos, self.shapes, self.starts, strict=True):
            element = BFLOAT16 if info.datatype == "BF16" else info.dtype.type
            address = self._at.address + start
            kind, device_id = self._stream.kind, self._stream.device_id
            self.binding.bind_output(info.name, kind, device_id, element, list(shape), address)

    def receive(self, values: Sequence[Any]) -> None:
        """Takes over the shapes of what was computed into the arena."""
        self.shapes = [tuple(value.shape()) for value in values]
        sizes = [nbytes_of(info, shape) for info, shape in zip(self._infos, self.shapes, strict=True)]
        self.starts, self.nbytes = laid(sizes)

    @property
    def in_arena(self) -> bool:
        """True when the next run's outputs have no place yet."""
        return self._at is None

    def values(self) -> Sequence[Any]:
        """What was computed into the arena."""
        return list(self.binding.get_outputs())

    def bring(self, target: int, values: Sequence[Any]) -> None:
        """Begins to copy the outputs to pinned memory."""
        if self._at is not None:
            if self.nbytes:
                self._stream.to_host(target, self._at.address, self.nbytes)
            return
        for value, start in zip(values, self.starts, strict=True):
            if nbytes := value.tensor_size_in_bytes():
                self._stream.to_host(target + start, value.data_ptr(), nbytes)

    def arrays(self, source: Any) -> dict[str, Array]:
        """The outputs as views of memory to which they were brought."""
        assert self.shapes is not None
        return {
            info.name: np.ndarray(shape, info.dtype, source, start)
            for info, shape, start in zip(self._infos, self.shapes, self.starts, strict=True)
        }

    def release(self) -> None:
        """Lets go of the arena's memory, after a run whose outputs have no place of their own."""
        self.binding.clear_binding_outputs()


def laid(sizes: Sequence[int]) -> tuple[list[int], int]:
    """(where each of these pieces begins, how long they are in all), one after the other."""
    starts, end = [], 0
    for size in sizes:
        starts.append(end)
        end += -(-size // ALIGNMENT) * ALIGNMENT
    return starts, end


def nbytes_of(info: TensorInfo, shape: Shape) -> int:
    """Of an array of this tensor's type."""
    return math.prod(shape) * info.dtype.itemsize


def _is_the_same(array: Array, target: Array) -> bool:
    return array.shape == target.shape and array.dtype == target.dtype and array.flags.c_contiguous


def as_value(array: Array, info: TensorInfo) -> Any:
    """An OrtValue on the array's own memory, when it is contiguous; BF16 travels as its bits."""
    contiguous = np.ascontiguousarray(array)
    if info.datatype == "BF16":
        return OrtValue.ortvalue_from_numpy_with_onnx_type(contiguous, BFLOAT16)
    return OrtValue.ortvalue_from_numpy(contiguous)
