"""Kept: what was measured of a model version, beside its files, so that the next start need not. Stage: store.

One file for all machines that share the store: what was measured counts for one device, one version of ONNX Runtime
and one number of threads.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ortmesh.serving.cards import Card, Runtime

log = logging.getLogger(__name__)

CPU = "CPUExecutionProvider"
FILE = ".costs.json"
"""Hidden: a change of it is no change of the model."""
MOST_BYTES = 1 << 20
MOST_KEYS = 64
"""Of the machines that were seen last."""


class Kept:
    """What is kept of one version for one way of running it."""

    def __init__(self, folder: Path, key: str) -> None:
        self._path = folder / FILE
        self.key = key

    def read(self) -> dict[str, Any]:
        """What was written under the key; empty when nothing was, or when it can't be read."""
        found = read_all(self._path.parent).get(self.key)
        return found if isinstance(found, dict) else {}

    def update(self, values: Mapping[str, Any]) -> None:
        """Adds to what is kept under the key. A store that can't be written to keeps nothing: then every start
        measures."""
        everything = read_all(self._path.parent)
        everything[self.key] = {**self.read(), **values, "at": _last(everything) + 1}
        while len(everything) > MOST_KEYS:
            del everything[min(everything, key=lambda key: _at(everything[key]))]
        try:
            self._write(json.dumps(everything))
        except OSError as error:
            log.debug("what was measured is not kept: %s", error)

    def _write(self, text: str) -> None:
        handle, name = tempfile.mkstemp(dir=self._path.parent, prefix=f"{FILE}.")
        try:
            with open(handle, "w", encoding="utf-8") as file:
                file.write(text)
            os.chmod(name, 0o644)
            os.replace(name, self._path)
        except BaseException:
            os.unlink(name)  # else every start leaves one more on a full disk
            raise


def read_all(folder: Path) -> dict[str, Any]:
    """What is kept in a version's folder, by key; empty when there is nothing that can be read."""
    try:
        found = json.loads(_regular(folder / FILE))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _regular(path: Path) -> bytes:
    """What a file holds. OSError for a link, and for what is no file: a pipe would be waited for, a device not end;
    ValueError for a file that is too large."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(f"{path} is no file")
        written = file.read(MOST_BYTES + 1)
    if len(written) > MOST_BYTES:
        raise ValueError(f"{path} has more than {MOST_BYTES} bytes")
    return written


def key_of(card: Card, folder: Path, provider: str, threads: int, gpu: str = "") -> str:
    """What a measurement depends on, in words. `gpu` is the name of the one that computes, where one does."""
    import onnxruntime  # the command line reads what is kept where no runtime is installed

    graph = card.files.get(card.graph) or _size_of(folder / card.graph)
    return ", ".join(
        (
            provider,
            cpu_name() if provider == CPU else gpu,
            f"onnxruntime {onnxruntime.__version__}",
            f"{threads} threads",
            f"{card.batching.max_rows} rows",
            *(_on_gpu(card.runtime) if provider != CPU else []),
            f"graph {graph}",
        )
    )


def cpu_name(facts: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name, as the system knows it; where it knows none (ARM), what there is to tell processors apart.
    `facts` is for tests."""
    if name := _line_of(facts, "model name"):
        return name
    parts = (platform.machine(), _line_of(facts, "CPU implementer"), _line_of(facts, "CPU part"), platform.processor())
    return " ".join(filter(None, dict.fromkeys(parts)))


def _on_gpu(runtime: Runtime) -> list[str]:
    """What of a card changes how long a GPU computes."""
    buckets = f"rows {runtime.buckets.rows or 'usual'} sizes {runtime.buckets.sizes or 'usual'}"
    return [
        *([f"recorded runs of {buckets}"] if runtime.records else []),
        *(["tf32"] if runtime.tf32 else []),
        *([f"built for {buckets}"] if "tensorrt" in (*runtime.providers, runtime.require) else []),
        *(["fp16"] if runtime.tensorrt.fp16 else []),
    ]


def _line_of(path: Path, name: str) -> str:
    """The value of the first line `name : value`."""
    try:
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                if line.startswith(name):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return ""


def _size_of(path: Path) -> str:
    try:
        return f"of {path.stat().st_size} bytes"
    except OSError:
        return "unknown"


def _last(everything: Mapping[str, Any]) -> int:
    return max(map(_at, everything.values()), default=0)


def _at(value: Any) -> int:
    """When it was written, as a number that grows with every writing."""
    at = value.get("at") if isinstance(value, dict) else None
    return at if isinstance(at, int) else 0
