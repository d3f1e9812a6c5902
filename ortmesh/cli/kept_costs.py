"""What a service measured of a model and left beside its files, for when no mesh runs. Stage: command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ortmesh.models.v1.models_pb2 import Batching, Choice, Cost


def kept_batching(folder: Path) -> tuple[str, Batching] | None:
    """On what it was measured, in words, and what: of the service that wrote last. None where nothing is kept."""
    from ortmesh.serving.kept import read_all

    written = {key: value for key, value in read_all(folder).items() if isinstance(value, dict)}
    for key in sorted(written, key=lambda key: _at(written[key]), reverse=True):
        if (batching := _as_batching(written[key])) is not None:
            return key.partition(", graph ")[0], batching
    return None


def _as_batching(written: dict[str, Any]) -> Batching | None:
    """None for what is no table of costs."""
    from ortmesh.serving.batcher.book import CostBook

    try:
        sizes = tuple(int(size) for size in written["grid"]["sizes"])
        book = CostBook(sizes)
    except (KeyError, TypeError, ValueError, IndexError):
        return None
    if not book.read(written):
        return None
    return Batching(
        costs=(
            Cost(size=size, rows=rows, seconds=seconds, measured=book.was_measured(size, rows))
            for size, rows, seconds in book.table()
        ),
        choices=(Choice(size=size, rows=rows, items_per_second=rate) for size, rows, rate in book.choices()),
        speed=book.speed,
    )


def _at(written: dict[str, Any]) -> int:
    at = written.get("at")
    return at if isinstance(at, int) else 0
