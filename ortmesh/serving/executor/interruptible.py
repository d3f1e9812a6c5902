"""InterruptibleSession: an ONNX Runtime session whose run can be ended, and whose memory can be given back.
Stage: executor.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import onnxruntime

from ortmesh.serving.types import Array

log = logging.getLogger(__name__)

ARENAS = {"CPUExecutionProvider": "cpu:0", "CUDAExecutionProvider": "gpu:0"}
"""ONNX Runtime's names for the memory of providers: an arena that keeps its peak until it is told to shrink."""
SILENT = 4
"""Only what is fatal is logged by ONNX Runtime itself: what fails is raised, and most of it is a caller's mistake."""


class InterruptibleSession:
    """A session, with run options of its own: one thread runs it, any other may interrupt."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session
        self._options = onnxruntime.RunOptions()
        self._options.log_severity_level = SILENT
        self._shrinking = onnxruntime.RunOptions()
        self._shrinking.terminate = True
        self._shrinking.log_severity_level = SILENT
        arenas = [ARENAS[name] for name in session.get_providers() if name in ARENAS]
        self._shrinks = True
        self._shrinking.add_run_config_entry("memory.enable_memory_arena_shrinkage", ";".join(arenas))

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

    def run(self, outputs: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
        """The outputs, in their order. A run that is interrupted raises ONNX Runtime's Fail."""
        return list(self._session.run(outputs, feeds, self._options))

    def run_with_iobinding(self, binding: Any) -> None:
        """Runs on what is bound."""
        self._session.run_with_iobinding(binding, self._options)

    def interrupt(self) -> None:
        """Ends the run in progress before its next operator, and every later one until `resume`."""
        self._options.terminate = True

    def resume(self) -> None:
        """Runs go on again."""
        self._options.terminate = False

    def shrink(self) -> None:
        """Gives back what the arenas keep of the largest run so far.

        ONNX Runtime shrinks at the end of a run only, also of one that is ended before its first operator: that
        costs 0.1 ms and the time to unmap. To be called between two runs, by the thread that runs.
        """
        if not self._shrinks:
            return
        try:
            binding = self._session.io_binding()
            binding.bind_output(self._session.get_outputs()[0].name, "cpu")
            self._session.run_with_iobinding(binding, self._shrinking)
        except Exception as error:  # always one: the run was ended, and its exceptions have no public base
            if "terminate flag" not in str(error):
                self._shrinks = False
                log.warning("this model's memory is not given back: %s", error)
