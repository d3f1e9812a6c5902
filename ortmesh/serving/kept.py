"""Kept: what was measured of a model version, beside its files, so that the next start need not. Stage: store.

One file for all machines that share the store: what was measured counts for one device, one version of ONNX Runtime
and one number of threads.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ortmesh.serving.cards import Card

log = logging.getLogger(__name__)

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
            with tempfile.NamedTemporaryFile(
                "w", encoding="utf-8", dir=self._path.parent, prefix=FILE, delete=False
            ) as file:
                json.dump(everything, file)
            os.chmod(file.name, 0o644)
            os.replace(file.name, self._path)
        except OSError as error:
            log.debug("what was measured is not kept: %s", error)


def read_all(folder: Path) -> dict[str, Any]:
    """What is kept in a version's folder, by key; empty when there is nothing that can be read."""
    try:
        if (folder / FILE).stat().st_size > MOST_BYTES:
            return {}
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def key_of(card: Card, folder: Path, provider: str, threads: int) -> str:
    """What a measurement depends on, in words."""
    import onnxruntime  # the command line reads what is kept where no runtime is installed

    graph = card.files.get(card.graph) or _size_of(folder / card.graph)
    return ", ".join(
        (
            provider,
            device_of(provider),
            f"onnxruntime {onnxruntime.__version__}",
            f"{threads} threads",
            f"{card.batching.max_rows} rows",
            *(["recorded runs"] if card.runtime.cuda_graph else []),
            f"graph {graph}",
        )
    )


def device_of(provider: str) -> str:
    """The name of the device that computes, as the system knows it; empty when it tells none."""
    if provider == "CPUExecutionProvider":
        return _line_of(Path("/proc/cpuinfo"), "model name")
    cards = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    return _line_of(cards[0], "Model") if cards else ""


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
