"""Which axis of each tensor counts the items of a batch, guessed from the shapes that a graph states. Stage: store.

Only a guess: a named batch dimension does not prove that rows are independent, which warm-up tests.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Dims = tuple[int | str | None, ...]
"""Sizes; a name where the size is free but equal wherever the name stands; None where it is free."""

# What people and exporters call it.
BATCH = re.compile(r"(n|b|bs|batch|.*batch.*|rows|num_(examples|samples))", re.IGNORECASE)
# Names that exporters make up for each dimension anew: equal dimensions have different ones.
MADE_UP = re.compile(r"(unk__\d+|.*_dynamic_axes_\d+|.*_dim_\d+|DynamicDimension\.\d+|\?)")


@dataclass(frozen=True, slots=True)
class Place:
    """How one tensor takes part in batching."""

    batch_axis: int | None
    shared: bool = False
    """An input without a batch axis: equal for all items of a batch."""


ALONE = Place(None)


def infer(inputs: Mapping[str, Dims | None], outputs: Mapping[str, Dims | None]) -> Mapping[str, Place]:
    """Each tensor's place, by its name; all ALONE when nothing can be told. None stands for an unknown rank."""
    known = {name: _named(dims) for name, dims in {**inputs, **outputs}.items() if dims is not None}
    heads = [known[name] for name in inputs if name in known]
    symbol = _batch_symbol(heads)
    if len(heads) < len(inputs) or (symbol is None and not _all_free(heads)):
        return dict.fromkeys([*inputs, *outputs], ALONE)
    places = {name: _place(known[name], symbol, is_input=True) for name in inputs}
    return places | {name: _place(known.get(name), symbol, is_input=False) for name in outputs}


def _named(dims: Dims) -> Dims:
    return tuple(None if isinstance(size, str) and MADE_UP.fullmatch(size) else size for size in dims)


def _batch_symbol(inputs: Sequence[Dims]) -> str | None:
    """The name of the batch: one that says so, else the one with which all free first dimensions agree."""
    names = {size for dims in inputs for size in dims if isinstance(size, str)}
    telling = sorted(name for name in names if BATCH.fullmatch(name))
    if len(telling) == 1:
        return telling[0]
    first = {dims[0] for dims in inputs if dims and isinstance(dims[0], str)}
    return str(first.pop()) if len(first) == 1 else None


def _all_free(inputs: Sequence[Dims]) -> bool:
    """True when every first dimension that is not fixed has no name, and there is one."""
    first = [dims[0] for dims in inputs if dims and not isinstance(dims[0], int)]
    return bool(first) and all(size is None for size in first)


def _place(dims: Dims | None, symbol: str | None, *, is_input: bool) -> Place:
    axes = [axis for axis, size in enumerate(dims or ()) if size == symbol and symbol is not None]
    if len(axes) == 1:
        return Place(axes[0])
    if not axes and dims and dims[0] is None:
        return Place(0)
    return Place(None, shared=is_input and not axes)
