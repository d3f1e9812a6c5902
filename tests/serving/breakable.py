"""Sessions that fail as they are told: real ones of ONNX Runtime behind a stand-in at the executor's edge."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnxruntime

REAL = onnxruntime.InferenceSession
Raises = Callable[[Mapping[str, Any]], Exception | None]

ILLEGAL_ACCESS = (
    "CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; hostname=gpu-1 ; "
    "file=/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_execution_provider.cc ; line=450 ; "
    "expr=cudaStreamSynchronize(static_cast<cudaStream_t>(stream_));"
)
OUT_OF_MEMORY = (
    "CUDA failure 2: out of memory ; GPU=0 ; hostname=gpu-1 ; "
    "file=/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_allocator.cc ; line=63 ; "
    "expr=cudaMalloc((void**)&p, size);"
)
ARENA_FULL = (
    "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running Conv node. Name:'c' "
    "Status Message: /onnxruntime_src/onnxruntime/core/framework/bfc_arena.cc:376 void* "
    "onnxruntime::BFCArena::AllocateRawInternal(size_t, bool) Failed to allocate memory for requested buffer of size 8"
)


class Faults:
    """What goes wrong in the sessions that are opened from now on, by the name of their model's folder."""

    def __init__(self) -> None:
        self.raising: dict[str, Raises] = {}
        self.devices: set[str] = set()
        """Models whose sessions say that they run on CUDA."""
        self.opened: dict[str, int] = {}
        self.may_open = threading.Event()
        """Sessions are opened once it is set, as it is at first."""
        self.may_open.set()

    def always(self, model: str, text: str) -> None:
        """Every run of the model fails."""
        self.raising[model] = lambda feeds: RuntimeError(text)

    def once(self, model: str, text: str) -> None:
        """The next run of the model fails."""

        def fail(feeds: Mapping[str, Any]) -> Exception:
            del self.raising[model]
            return RuntimeError(text)

        self.raising[model] = fail

    def heal(self, model: str) -> None:
        """Nothing goes wrong any more."""
        self.raising.pop(model, None)

    def open(self, path: str, *rest: Any, **more: Any) -> BreakableSession:
        """As `onnxruntime.InferenceSession`."""
        model = Path(path).parent.parent.name
        self.opened[model] = self.opened.get(model, 0) + 1
        assert self.may_open.wait(60)
        return BreakableSession(REAL(path, *rest, **more), model, self)


class BreakableSession:
    """A session and its faults."""

    def __init__(self, session: onnxruntime.InferenceSession, model: str, faults: Faults) -> None:
        self._session = session
        self._model = model
        self._faults = faults

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def get_providers(self) -> list[str]:
        cuda = ["CUDAExecutionProvider"] if self._model in self._faults.devices else []
        return cuda + list(self._session.get_providers())

    def run(self, outputs: Any, feeds: Mapping[str, Any], options: Any = None) -> Any:
        self._fail(feeds)
        return self._session.run(outputs, feeds, options)

    def run_with_iobinding(self, binding: Any, options: Any = None) -> None:
        if not options.terminate:
            self._fail({})
        self._session.run_with_iobinding(binding, options)

    def _fail(self, feeds: Mapping[str, Any]) -> None:
        raises = self._faults.raising.get(self._model)
        if raises is not None and (error := raises(feeds)) is not None:
            raise error
