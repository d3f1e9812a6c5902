"""Runner: how one batch's tensors reach a session and its outputs come back. Stage: executor."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from ortmesh.serving.executor.buckets import Buckets
from ortmesh.serving.executor.interruptible import InterruptibleSession
from ortmesh.serving.executor.on_device import OnDevice, as_value
from ortmesh.serving.signature import Signature
from ortmesh.serving.types import Array, Tensors


class Runner:
    """Runs feeds on one session. By one thread at a time.

    On a CPU nothing is copied on the way in: the session reads a contiguous array where it lies. On a GPU `OnDevice`
    says what is copied. Graphs with texts run as ONNX Runtime runs them, wherever they are.
    """

    def __init__(self, session: InterruptibleSession, signature: Signature, buckets: Buckets | None = None) -> None:
        """`buckets` are the shapes of which runs may be recorded, where the session records."""
        self._session = session
        self._signature = signature
        self._outputs = list(signature.outputs)
        types = {info.datatype for info in (*signature.inputs.values(), *signature.outputs.values())}
        self._bound = "BF16" in types and "BYTES" not in types
        self._on_device: OnDevice | None = None
        if session.stream is not None and "BYTES" not in types:
            self._on_device = OnDevice(session, session.stream, signature, buckets)

    @property
    def note(self) -> str:
        """What an operator should know of how it runs."""
        return self._on_device.note if self._on_device is not None else ""

    def run(self, feeds: Tensors) -> Tensors:
        """The outputs by name. What ONNX Runtime raises leaves it as it is; CudaFailed when the GPU failed."""
        if self._on_device is not None:
            return self._on_device.run(feeds)
        if self._bound:
            return self._run_bound(feeds)
        return dict(zip(self._outputs, self._session.run(self._outputs, feeds), strict=True))

    def shrink(self) -> None:
        """Gives back what large runs left behind."""
        if self._on_device is not None:
            self._on_device.shrink()
        else:
            self._session.shrink()

    def _run_bound(self, feeds: Tensors) -> Tensors:
        """With bound outputs: BF16 is what `run` can't return."""
        binding = self._session.io_binding()
        kept = [as_value(array, self._signature.inputs[name]) for name, array in feeds.items()]
        for name, value in zip(feeds, kept, strict=True):
            binding.bind_ortvalue_input(name, value)
        for name in self._outputs:
            binding.bind_output(name, "cpu")
        self._session.run_with_iobinding(binding)
        return dict(zip(self._outputs, map(_array, binding.get_outputs()), strict=True))


def _array(value: Any) -> Array:
    if value.data_type() == "tensor(bfloat16)":  # NumPy has no such type and `numpy()` refuses: copied as its bits
        raw = (ctypes.c_char * value.tensor_size_in_bytes()).from_address(value.data_ptr())
        return np.frombuffer(raw, np.uint16).reshape(value.shape()).copy()
    return np.asarray(value.numpy())
