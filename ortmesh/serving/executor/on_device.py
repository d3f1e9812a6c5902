"""OnDevice: batches on a GPU, with one copy each way and one wait a run. Stage: executor.

What is copied: each input once on the host, into pinned memory, where it is padded when its run is recorded; from there
to the GPU, in the order of the session's stream, without waiting; the graph runs on the same stream and leaves its
outputs in ONNX Runtime's arena; from there to pinned memory; then the thread waits, once, and each output is copied
into an array of its own, since the pinned memory serves the next run. (ONNX Runtime's own ways, `run` and
`bind_ortvalue_input`, copy from memory that is not pinned and wait for every tensor.)
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from onnxruntime import OrtValue

from ortmesh.serving.cards import MAX_RECORDED
from ortmesh.serving.executor.buckets import Buckets, cut, fill, padded_shape, rows_and_size
from ortmesh.serving.executor.cuda import Memory, Stream, view
from ortmesh.serving.executor.failures import readable
from ortmesh.serving.executor.interruptible import UNRECORDED, InterruptibleSession
from ortmesh.serving.executor.quiet import QUIET
from ortmesh.serving.executor.stack import must_have_rows
from ortmesh.serving.signature import Signature, TensorInfo
from ortmesh.serving.types import Array, Tensors

log = logging.getLogger(__name__)

BFLOAT16 = 16
"""ONNX's number of the type that NumPy lacks."""
ALIGNMENT = 256
Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]


class Room(NamedTuple):
    """Memory of both sides for one input."""

    pinned: Memory
    device: Memory


class Place:
    """Where the inputs of one shape, or of all shapes in turn, lie; and the outputs, on the host."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._rooms: dict[str, Room] = {}
        self._out: Memory | None = None

    def room(self, name: str, nbytes: int) -> Room:
        """For an input of so many bytes; that of the run before when it is large enough."""
        room = self._rooms.get(name)
        if room is None or room.pinned.nbytes < nbytes:
            self._rooms.pop(name, None)
            room = self._rooms[name] = Room(self._stream.pinned(nbytes), self._stream.memory(nbytes))
        return room

    def out(self, nbytes: int) -> Memory:
        """Pinned memory for all outputs together."""
        if self._out is None or self._out.nbytes < nbytes:
            self._out = None
            self._out = self._stream.pinned(nbytes)
        return self._out

    def clear(self) -> None:
        """Gives all back."""
        self._rooms.clear()
        self._out = None


class Recording:
    """One shape's memory at fixed addresses, and the run that is recorded on it."""

    def __init__(self, number: int, place: Place, binding: Any) -> None:
        self.number = number
        self.place = place
        self.binding = binding
        self.ran = False
        """True once its outputs have their memory."""
        self.threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
        """Those that recorded it: ONNX Runtime keeps recordings a thread."""


class OnDevice:
    """Runs feeds on a session of a GPU. By one thread at a time."""

    def __init__(
        self, session: InterruptibleSession, stream: Stream, signature: Signature, buckets: Buckets | None = None
    ) -> None:
        """With `buckets` runs of those shapes are recorded the second time and replayed from then on."""
        self._session = session
        self._stream = stream
        self._signature = signature
        self._outputs = list(signature.outputs)
        self._buckets = buckets if session.records and signature.stackable else None
        self._here = dict(zip(signature.inputs, session.input_devices(), strict=True))
        self._place = Place(stream)
        self._recordings: dict[tuple[Shape, ...], Recording] = {}
        self.note = ""
        """What an operator should know."""

    def run(self, feeds: Tensors) -> Tensors:
        """The outputs by name, in memory of their own."""
        wrong: Exception | None = None
        if self._buckets is not None:
            try:
                recorded = self._run_recorded(feeds, self._buckets)
            except Exception as error:
                wrong, recorded = error, None
            if recorded is not None:
                return recorded
        with QUIET.using():
            outputs = self._run(feeds)  # fails too when it is the request that is wrong
        if wrong is not None:
            self._give_up(wrong)
        return outputs

    def shrink(self) -> None:
        """Gives back the memory of large runs; that of recorded ones stays."""
        with QUIET.using():
            self._place.clear()
        self._session.shrink()

    def _run(self, feeds: Tensors) -> Tensors:
        binding = self._session.io_binding()
        shapes = {name: array.shape for name, array in feeds.items()}
        try:
            self._bind(binding, self._place, feeds, shapes)
            self._copy_in(self._place, feeds, shapes)
            self._session.begin_with_iobinding(binding)
            return self._read(binding, self._place)
        except Exception:
            self._stream.wait()  # what was begun still uses the memory of the next run
            raise

    def _run_recorded(self, feeds: Tensors, buckets: Buckets) -> Tensors | None:
        """None when runs of this shape are not recorded."""
        rows, size = rows_and_size(feeds, self._signature)
        most_rows, most_size = buckets.largest
        if rows > most_rows or (most_size and size > most_size):
            return None
        many, long = buckets.fit(rows, size)
        infos = self._signature.inputs
        shapes = {name: padded_shape(infos[name], array.shape, many, long) for name, array in feeds.items()}
        recording = self._recording(feeds, shapes)
        if recording is None:
            return None
        try:
            outputs = self._replay(recording, feeds, shapes)
        except Exception:
            del self._recordings[tuple(shapes.values())]
            raise
        must_have_rows(outputs, many, self._signature)
        return cut(outputs, self._signature, rows, size, long)

    def _recording(self, feeds: Tensors, shapes: Shapes) -> Recording | None:
        if any(not self._on_device(name) for name in feeds):
            raise ValueError("an input is read on the CPU")
        key = tuple(shapes.values())
        found = self._recordings.get(key)
        if found is None and len(self._recordings) < MAX_RECORDED:
            with QUIET.using():
                binding, place = self._session.io_binding(), Place(self._stream)
                self._bind(binding, place, feeds, shapes)
            found = self._recordings[key] = Recording(self._session.new_recording(), place, binding)
        return found

    def _replay(self, recording: Recording, feeds: Tensors, shapes: Shapes) -> Tensors:
        """The first run finds memory for its outputs, the second is recorded, the others are replayed.

        A thread that finds no quiet moment to record runs without.
        """
        me = threading.current_thread()
        if me in recording.threads:
            with QUIET.using():
                return self._run_bound(recording, feeds, shapes, recording.number)
        if recording.ran:
            with QUIET.alone() as quiet:
                if quiet:
                    outputs = self._run_bound(recording, feeds, shapes, recording.number)
                    recording.threads.add(me)
                    return outputs
        with QUIET.using():
            outputs = self._run_bound(recording, feeds, shapes, UNRECORDED)
        recording.ran = True
        return outputs

    def _run_bound(self, recording: Recording, feeds: Tensors, shapes: Shapes, number: int) -> Tensors:
        try:
            self._copy_in(recording.place, feeds, shapes)
            self._session.begin_with_iobinding(recording.binding, number)
            return self._read(recording.binding, recording.place)
        except Exception:
            self._stream.wait()
            raise

    def _give_up(self, error: Exception) -> None:
        """From now on without recordings: the same run worked without."""
        self._buckets = None
        self._recordings.clear()
        self.note = f"its runs are not recorded (CUDA graphs): {readable(error)}"
        log.warning("%s", self.note)

    def _on_device(self, name: str) -> bool:
        return self._here[name].lower() == self._stream.kind

    def _bind(self, binding: Any, place: Place, feeds: Tensors, shapes: Shapes) -> None:
        """Binds memory, which is filled later; an input that the graph reads on the CPU is bound as it is."""
        for name, array in feeds.items():
            info = self._signature.inputs[name]
            if not self._on_device(name):
                binding.bind_ortvalue_input(name, as_value(array, info))
                continue
            shape = shapes[name]
            room = place.room(name, nbytes_of(info, shape))
            element = BFLOAT16 if info.datatype == "BF16" else info.dtype.type
            stream = self._stream
            binding.bind_input(name, stream.kind, stream.device_id, element, list(shape), room.device.address)
        for name in self._outputs:
            binding.bind_output(name, self._stream.kind, self._stream.device_id)

    def _copy_in(self, place: Place, feeds: Tensors, shapes: Shapes) -> None:
        for name, array in feeds.items():
            if not self._on_device(name):
                continue
            info, shape = self._signature.inputs[name], shapes[name]
            nbytes = nbytes_of(info, shape)
            room = place.room(name, nbytes)
            fill(view(room.pinned, info.dtype, shape), array, info)
            if nbytes:
                self._stream.to_device(room.device.address, room.pinned.address, nbytes)

    def _read(self, binding: Any, place: Place) -> Tensors:
        values = binding.get_outputs()
        starts, end = [], 0
        for value in values:
            starts.append(end)
            end += -(-value.tensor_size_in_bytes() // ALIGNMENT) * ALIGNMENT
        out = place.out(end)
        for value, start in zip(values, starts, strict=True):
            if nbytes := value.tensor_size_in_bytes():
                self._stream.to_host(out.address + start, value.data_ptr(), nbytes)
        self._stream.wait()
        infos = self._signature.outputs
        return {
            name: view(out, infos[name].dtype, tuple(value.shape()), start).copy()
            for name, value, start in zip(self._outputs, values, starts, strict=True)
        }


def nbytes_of(info: TensorInfo, shape: Shape) -> int:
    """Of an array of this tensor's type."""
    return int(np.prod(shape, dtype=np.int64)) * info.dtype.itemsize


def as_value(array: Array, info: TensorInfo) -> Any:
    """An OrtValue on the array's own memory, when it is contiguous; BF16 travels as its bits."""
    contiguous = np.ascontiguousarray(array)
    if info.datatype == "BF16":
        return OrtValue.ortvalue_from_numpy_with_onnx_type(contiguous, BFLOAT16)
    return OrtValue.ortvalue_from_numpy(contiguous)
