"""Runner: how one batch's tensors reach a session and its outputs come back. Stage: executor."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any

import numpy as np

from ortmesh.serving.executor.buckets import Buckets
from ortmesh.serving.executor.interruptible import InterruptibleSession
from ortmesh.serving.executor.on_device import OnDevice
from ortmesh.serving.executor.room import as_value
from ortmesh.serving.executor.stack import fresh
from ortmesh.serving.signature import Signature
from ortmesh.serving.types import Array, Tensors


class Runner:
    """Runs feeds on one session. On a GPU by one thread at a time; on a CPU several may, for nothing is kept.

    On a CPU nothing is copied on the way in: the session reads a contiguous array where it lies. On a GPU `OnDevice`
    says what is copied. Graphs with texts run as ONNX Runtime runs them, wherever they are.
    """

    def __init__(self, session: InterruptibleSession, signature: Signature, buckets: Buckets | None = None) -> None:
        """`buckets` are the shapes of which runs may be recorded, where the session records."""
        self._session = session
        self._signature = signature
        self._outputs = tuple(signature.outputs)
        types = {info.datatype for info in (*signature.inputs.values(), *signature.outputs.values())}
        self._bound = "BF16" in types and "BYTES" not in types
        self._on_device: OnDevice | None = None
        if session.stream is not None and "BYTES" not in types:
            self._on_device = OnDevice(session, session.stream, signature, buckets)

    @property
    def note(self) -> str:
        """What an operator should know of how it runs."""
        return self._on_device.note if self._on_device is not None else ""

    def places(
        self, shapes: Mapping[str, tuple[int, ...]], outputs: tuple[str, ...] = (), *, pad: bool = True
    ) -> dict[str, Array]:
        """Arrays of these shapes for the inputs of the next run, which must be given the same mapping: on a GPU they
        lie where the device reads them by itself. `outputs` and `pad` as in `run`."""
        if self._on_device is not None:
            return self._on_device.places(shapes, outputs or self._outputs, pad=pad)
        return fresh(shapes, self._signature)

    def run(self, feeds: Tensors, outputs: tuple[str, ...] = (), *, pad: bool = True) -> Tensors:
        """These outputs by name, in the graph's order; all without any. Others are computed and stay on the device.

        Without `pad` inputs are computed in the sizes that they have, never in a larger one that was recorded.
        What ONNX Runtime raises leaves it as it is; CudaFailed when the GPU failed.
        """
        names = outputs or self._outputs
        if self._on_device is not None:
            return self._on_device.run(feeds, names, pad=pad)
        if self._bound:
            return self._run_bound(feeds, names)
        return dict(zip(names, self._session.run(names, feeds), strict=True))

    def record_no_more(self) -> None:
        """From the next run on none is recorded or replayed: rows of padding would change the results. From any
        thread."""
        if self._on_device is not None:
            self._on_device.record_no_more()

    def shrink(self) -> None:
        """Gives back what large runs left behind."""
        if self._on_device is not None:
            self._on_device.shrink()
        else:
            self._session.shrink()

    def _run_bound(self, feeds: Tensors, outputs: tuple[str, ...]) -> Tensors:
        """With bound outputs: BF16 is what `run` can't return."""
        binding = self._session.io_binding()
        kept = [as_value(array, self._signature.inputs[name]) for name, array in feeds.items()]
        for name, value in zip(feeds, kept, strict=True):
            binding.bind_ortvalue_input(name, value)
        for name in outputs:
            binding.bind_output(name, "cpu")
        self._session.run_with_iobinding(binding)
        return dict(zip(outputs, map(_array, binding.get_outputs()), strict=True))


def _array(value: Any) -> Array:
    if value.data_type() == "tensor(bfloat16)":  # NumPy has no such type and `numpy()` refuses: copied as its bits
        raw = (ctypes.c_char * value.tensor_size_in_bytes()).from_address(value.data_ptr())
        return np.frombuffer(raw, np.uint16).reshape(value.shape()).copy()
    return np.asarray(value.numpy())
