"""How alike embeddings are, as a table of cosines. Stage: command line."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from ortmesh.cli.answers import table

MAX_COLUMNS = 8
"""With more items each gets a line with its nearest one instead."""
MAX_NAME = 48

Vector = Sequence[float] | None
"""None for an item that could not be embedded."""


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    """The cosine of the angle between two vectors; 0 when one has no length."""
    lengths = math.hypot(*one) * math.hypot(*other)
    return sum(a * b for a, b in zip(one, other, strict=True)) / lengths if lengths else 0.0


def cosine_table(names: Sequence[str], vectors: Sequence[Vector]) -> Table:
    """Every pair's cosine, or each item's nearest one when there are many."""
    return _matrix(names, vectors) if len(names) <= MAX_COLUMNS else _nearest(names, vectors)


def _matrix(names: Sequence[str], vectors: Sequence[Vector]) -> Table:
    numbers = [str(number) for number in range(1, len(names) + 1)]
    made = table("", "", *numbers, right=numbers)
    for number, name, vector in zip(numbers, names, vectors, strict=True):
        made.add_row(number, short(name), *(_cell(vector, other) for other in vectors))
    return made


def _nearest(names: Sequence[str], vectors: Sequence[Vector]) -> Table:
    made = table("", "", "COSINE", "NEAREST", right=["COSINE"])
    for index, (name, vector) in enumerate(zip(names, vectors, strict=True)):
        others = [
            (cosine(vector, other), other_name)
            for place, (other_name, other) in enumerate(zip(names, vectors, strict=True))
            if vector is not None and other is not None and place != index
        ]
        score, nearest = max(others, default=(math.nan, "no vector"))
        made.add_row(str(index + 1), short(name), f"{score:.3f}", short(nearest))
    return made


def _cell(one: Vector, other: Vector) -> str:
    return "–" if one is None or other is None else f"{cosine(one, other):.3f}"


def short(text: str) -> str:
    """A text's beginning, fit for a table."""
    line = " ".join(text.split())
    return escape(line if len(line) <= MAX_NAME else f"{line[: MAX_NAME - 1]}…")
