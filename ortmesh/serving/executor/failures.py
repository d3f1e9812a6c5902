"""What an exception of ONNX Runtime means: a wrong item, a failed item or a broken executor. Stage: executor."""

from __future__ import annotations

import re

from ortmesh.errors import BadInput, Cancelled, ExecutorFailed, OrtmeshError

_DEVICE = re.compile(r"CUDA|CUBLAS|CUDNN|TensorRT|device-side|illegal memory access", re.IGNORECASE)
_MEMORY = re.compile(r"bad_alloc|failed to allocate|out of memory|cannot allocate|ALLOC_FAILED", re.IGNORECASE)
_ENDED = "Exiting due to terminate flag"
_BOUND = "Error in execution: "
"""How the error of a run with bound tensors begins: a plain RuntimeError, where `run` raises ONNX Runtime's own."""
_QUOTED = re.compile(r"Name:\s*'[^']*'|'[^']*'|\"[^\"]*\"")
"""Names of the graph's author, which say nothing about the failure."""
_PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ")
_PLACE = re.compile(r"\S*/onnxruntime/\S+|\b0x[0-9a-fA-F]+\b")
_FOLDERS = re.compile(r"(?<!\S)/(?:[^\s/]+/)+")
"""Of an absolute path: where the store lies is no caller's business."""


class ExecutorBroken(Exception):
    """The executor can't go on: its model becomes not ready and it is made anew."""


def failure_of(error: Exception, *, on_device: bool) -> OrtmeshError:
    """The error that the caller of the one item gets, after it failed alone.

    A graph's own refusal of a shape or value arrives as a plain FAIL or RUNTIME_EXCEPTION: what failed alone on a
    healthy device was made wrongly, by a caller that sends tensors, or for one that does not (`not_the_callers`).
    ExecutorBroken is raised when the device failed; a session on the CPU has none (`on_device` False), whatever the
    names in its graph are.
    """
    if isinstance(error, OrtmeshError):
        return error
    text = _QUOTED.sub("", str(error))
    if _ENDED in text:
        return Cancelled("the computation was ended: nobody waited for it any more")
    if isinstance(error, MemoryError) or _MEMORY.search(text):
        return ExecutorFailed("the model ran out of memory on this request")
    if on_device and _DEVICE.search(text):
        raise ExecutorBroken(readable(error)) from error
    if type(error).__module__.startswith("onnxruntime") or text.startswith(_BOUND):
        return BadInput("inputs", f"the model's graph refuses these tensors: {readable(error)}")
    return ExecutorFailed("the model failed on this request")


def failure_of_text(error: Exception, *, on_device: bool) -> OrtmeshError:
    """The error that whoever waits for a text gets, who sent no tensors. ExecutorBroken as `failure_of` raises it."""
    failure = failure_of(error, on_device=on_device)
    return not_the_callers(failure) if isinstance(failure, BadInput) else failure


def not_the_callers(refusal: BadInput) -> ExecutorFailed:
    """What a caller gets who sent no tensors, where a model refuses those that were made of the request."""
    told = "the model refuses what was made of the request; its card or one of its files may not fit its graph"
    return ExecutorFailed(f"{told}: {refusal.message}")


def is_of_device(error: BaseException) -> bool:
    """True when it says that a device failed. After an illegal access CUDA refuses its process everything."""
    text = str(error)
    return bool(_DEVICE.search(text)) and not _MEMORY.search(text)


def lacks_memory(error: BaseException) -> bool:
    """True when there was no memory for it, on the host or on a device: later there may be."""
    return isinstance(error, MemoryError) or _MEMORY.search(str(error)) is not None


def readable(error: BaseException) -> str:
    """The first line of a runtime's error, without its prefix, source paths, folders and addresses."""
    text = str(error).strip() or type(error).__name__
    line = _PREFIX.sub("", text.removeprefix(_BOUND).splitlines()[0])
    return _FOLDERS.sub("", _PLACE.sub("", line)).strip()[:500]
