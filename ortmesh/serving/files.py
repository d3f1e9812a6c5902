"""Files: which of a version's folder are the model's. Stage: store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def files_of(folder: Path) -> Iterator[Path]:
    """All below a version's folder, but for what is hidden and what lies in hidden folders: that was made of the model
    when it was served (`.costs.json`, TensorRT's engines in `.tensorrt`)."""
    for path in folder.rglob("*"):
        if not any(part.startswith(".") for part in path.relative_to(folder).parts):
            yield path
