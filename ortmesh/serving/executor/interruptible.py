"""InterruptibleSession: an ONNX Runtime session whose run can be ended, and whose memory can be given back.
Stage: executor.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import onnxruntime

from ortmesh.serving.executor.cuda import Stream
from ortmesh.serving.executor.quiet import QUIET
from ortmesh.serving.types import Array

log = logging.getLogger(__name__)

ARENAS = {"CPUExecutionProvider": "cpu:0", "CUDAExecutionProvider": "gpu:{device_id}"}
"""ONNX Runtime's names for the memory of providers: an arena that keeps its peak until it is told to shrink."""
UNRECORDED = -1
"""ONNX Runtime's `gpu_graph_id` of a run that is neither recorded nor replayed."""
SILENT = 4
"""Only what is fatal is logged by ONNX Runtime itself: what fails is raised, and most of it is a caller's mistake."""


class InterruptibleSession:
    """A session, with run options of its own: one thread runs it, any other may interrupt."""

    def __init__(
        self, session: onnxruntime.InferenceSession, stream: Stream | None = None, *, records: bool = False
    ) -> None:
        """`stream` is the one that it was told to compute on; `records` when it may record runs."""
        self._session = session
        self.stream = stream
        """Where a GPU computes its runs; None on a CPU."""
        self.records = records
        """True when runs may be recorded and replayed."""
        self._terminate = False
        self._recordings = 0
        self._options: dict[int | None, onnxruntime.RunOptions] = {}
        self._shrinking = onnxruntime.RunOptions()
        self._shrinking.terminate = True
        self._shrinking.log_severity_level = SILENT
        self.shrunk = 0
        """How many times its memory was given back: what was recorded before computes where no memory is any more."""
        arenas = [ARENAS[name] for name in session.get_providers() if name in ARENAS]
        if records:
            self._shrinking.add_run_config_entry("gpu_graph_id", str(UNRECORDED))
        device_id = stream.device_id if stream is not None else 0
        arenas = [arena.format(device_id=device_id) for arena in arenas]
        self._shrinks = True
        self._shrinking.add_run_config_entry("memory.enable_memory_arena_shrinkage", ";".join(arenas))

    def __del__(self) -> None:
        """ONNX Runtime frees a GPU's memory with the session."""
        if getattr(self, "stream", None) is not None:
            QUIET.free([self.__dict__.pop("_session")].clear)

    def again(self) -> InterruptibleSession:
        """The same session for another thread: neither's interruption ends what the other computes, and the weights
        are there once."""
        return InterruptibleSession(self._session, self.stream, records=self.records)

    def get_inputs(self) -> Sequence[Any]:
        """The graph's inputs, as ONNX Runtime tells of them."""
        return list(self._session.get_inputs())

    def get_outputs(self) -> Sequence[Any]:
        """The graph's outputs, as ONNX Runtime tells of them."""
        return list(self._session.get_outputs())

    def get_providers(self) -> list[str]:
        """The execution providers in use, the first one first."""
        return list(self._session.get_providers())

    def io_binding(self) -> Any:
        """Where inputs and outputs are bound for `run_with_iobinding`."""
        return self._session.io_binding()

    def new_recording(self) -> int:
        """A name for a recorded run, of which the session has no other."""
        self._recordings += 1
        return self._recordings

    def input_devices(self) -> list[str]:
        """ONNX Runtime's name of the memory where the graph wants each input, in their order, e.g. `Cuda`, `Cpu`."""
        return [str(info.name) for info in self._session.get_input_memory_infos()]

    def run(self, outputs: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
        """The outputs, in their order. A run that is interrupted raises ONNX Runtime's Fail."""
        with self._using():
            return list(self._session.run(outputs, feeds, self._options_of(None)))

    def run_with_iobinding(self, binding: Any) -> None:
        """Runs on what is bound, and waits for it."""
        with self._using():
            self._session.run_with_iobinding(binding, self._options_of(None))

    def begin_with_iobinding(self, binding: Any, recorded: int = UNRECORDED) -> None:
        """Begins to run on what is bound; `stream.wait()` waits for it.

        `recorded` from 1 on names a recorded run: the first time it is computed and recorded, later replayed, on the
        memory that was bound the first time. To be called within `QUIET`.
        """
        self._session.run_with_iobinding(binding, self._options_of(recorded))

    def _using(self) -> AbstractContextManager[None]:
        return QUIET.using() if self.stream is not None else nullcontext()

    def _options_of(self, recorded: int | None) -> onnxruntime.RunOptions:
        options = self._options.get(recorded)
        if options is None:
            options = onnxruntime.RunOptions()
            options.log_severity_level = SILENT
            if recorded is not None:
                options.add_run_config_entry("disable_synchronize_execution_providers", "1")
            # ONNX Runtime's Python asks for it at every bound run, and catches an error where it is not: 24 µs
            if self.records or recorded is not None:
                options.add_run_config_entry("gpu_graph_id", str(UNRECORDED if recorded is None else recorded))
            self._options[recorded] = options
            if self._terminate:  # asked after it can be found: an interruption meanwhile is not lost
                options.terminate = True
        return options

    def interrupt(self) -> None:
        """Ends the run in progress before its next operator, and every later one until `resume`.

        A replayed run has no operators: it ends by itself.
        """
        self._set_terminate(True)

    def resume(self) -> None:
        """Runs go on again."""
        self._set_terminate(False)

    def _set_terminate(self, terminate: bool) -> None:
        self._terminate = terminate
        for options in list(self._options.values()):
            options.terminate = terminate

    def shrink(self) -> None:
        """Gives back what the arenas keep of the largest run so far.

        ONNX Runtime shrinks at the end of a run only, also of one that is ended before its first operator: that
        costs 0.1 ms and the time to unmap. To be called between two runs, by the thread that runs. No run that was
        recorded before may be replayed afterwards.
        """
        if not self._shrinks:
            return
        self.shrunk += 1
        try:
            binding = self._session.io_binding()
            binding.bind_output(self._session.get_outputs()[0].name, "cpu")
            with self._using():
                self._session.run_with_iobinding(binding, self._shrinking)
        except Exception as error:  # always one: the run was ended, and its exceptions have no public base
            if "terminate flag" not in str(error):
                self._shrinks = False
                log.warning("this model's memory is not given back: %s", error)
