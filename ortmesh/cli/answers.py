"""Answers of the mesh as JSON, and what their parts look like for a person. Stage: command line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from google.protobuf import json_format
from google.protobuf.message import Message
from rich.measure import Measurement
from rich.table import Table

from ortmesh.cli.console import out

FIRST_NUMBERS = 8
WIDEST = 100_000
"""No row is longer."""
_NUMBERS = re.compile(r"\[\n((?:\s+-?\d[\d.e+-]*,?\n)+)\s*\]")
"""A list of numbers, one a line; no string has such lines, as JSON escapes their ends."""

if TYPE_CHECKING:
    from ortmesh.common.v1.common_pb2 import Embedding, ModelVersion


def print_json(answer: Message) -> None:
    """The answer in protobuf's JSON form; fields that hold their default are there too, so that scripts find them.
    A list of numbers is one line."""
    text = json_format.MessageToJson(answer, always_print_fields_with_no_presence=True, ensure_ascii=False)
    out.print(_NUMBERS.sub(lambda found: f"[{' '.join(found[1].split())}]", text), soft_wrap=True, markup=False)


def print_json_line(answer: Message) -> None:
    """One of several answers, as `print_json` writes it, on a line of its own (https://jsonlines.org)."""
    text = json_format.MessageToJson(answer, always_print_fields_with_no_presence=True, ensure_ascii=False, indent=None)
    out.print(text, soft_wrap=True, markup=False)


def print_model(model: ModelVersion) -> None:
    """The model that answered, faint."""
    out.print(f"{model.name}@{model.version}", style="dim")


def print_beginning(embedding: Embedding) -> None:
    """How long a vector is, and its first numbers."""
    numbers = ", ".join(f"{value:.4f}" for value in embedding.values[:FIRST_NUMBERS])
    out.print(f"{embedding.dimension} numbers: {numbers}, …")


def counted(number: int, what: str) -> str:
    """`1 row`, `2,048 rows`."""
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def table(*columns: str, right: Sequence[str] = (), wraps: Sequence[str] | None = None) -> Table:
    """An airy table; columns named in `right` hold numbers. In a narrow terminal those in `wraps` wrap: by default
    all."""
    made = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        whole = wraps is not None and column not in wraps
        made.add_column(column, justify="right" if column in right else "left", overflow="fold", no_wrap=whole)
    return made


def print_table(made: Table, *, folds: bool = False) -> None:
    """Prints a table so that no word is cut: where a terminal is narrower than its words, they go beyond the edge, or
    are folded if `folds` is set. Where no terminal reads it, each row is a line."""
    wide = out.options.update(width=WIDEST)
    for column in made.columns:
        if column.no_wrap:
            column.min_width = max(Measurement.get(out, wide, each).maximum for each in (column.header, *column.cells))
    needed = Measurement.get(out, wide, made)
    least = min(needed.minimum, out.width) if folds else needed.minimum
    made.width = max(least, min(out.width, needed.maximum)) if out.is_terminal else needed.maximum
    out.print(made, crop=False)


def bar(share: float, width: int = 20) -> str:
    """A share in [0, 1] as a bar of eighths of a character."""
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    return "█" * (eighths // 8) + (" ▏▎▍▌▋▊▉"[eighths % 8].strip())
