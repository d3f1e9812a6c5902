"""Buckets: the few shapes to which batches are padded where a GPU replays recorded runs. Pure. Stage: executor."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ortmesh.serving.cards import Card
from ortmesh.serving.signature import Signature, TensorInfo
from ortmesh.serving.types import Array, Tensors

SIZES = (8, 16, 32, 64, 128, 256, 512)
"""Along a padded axis, where the card names none."""


@dataclass(frozen=True, slots=True)
class Buckets:
    """Rows and sizes in rising order. What is larger than the largest keeps its own."""

    rows: Sequence[int]
    sizes: Sequence[int]
    """Empty when sizes are not padded."""

    def fit(self, rows: int, size: int) -> tuple[int, int]:
        """The smallest bucket that holds so many rows of this size."""
        return _next(self.rows, rows), _next(self.sizes, size)

    @property
    def largest(self) -> tuple[int, int]:
        """The most rows, the largest size (0 when sizes are not padded)."""
        return self.rows[-1], self.sizes[-1] if self.sizes else 0


def buckets_of(card: Card, *, pad_sizes: bool) -> Buckets:
    """What the card says; else powers of two to its `max_rows`, and the usual sizes.

    `pad_sizes` False where padding changes the results: then every size is one of its own. Rows are padded all the
    same: a model whose results depend on other rows must have no buckets at all.
    """
    written = card.runtime.buckets
    most = card.batching.max_rows
    rows = sorted({1, *(row for row in written.rows if row <= most)}) if written.rows else powers_of_two(most)
    return Buckets(rows, sorted(written.sizes or SIZES) if pad_sizes else ())


def powers_of_two(most: int) -> list[int]:
    """1, 2, 4 … and `most` itself."""
    return [*(1 << power for power in range(most.bit_length()) if 1 << power < most), most]


def padded_shape(info: TensorInfo, shape: tuple[int, ...], rows: int, size: int) -> tuple[int, ...]:
    """An input's shape in a bucket of so many rows and this size (0: its own)."""
    sizes = list(shape)
    if info.batch_axis is not None:
        sizes[info.batch_axis] = rows
    if info.pad_axis is not None and size:
        sizes[info.pad_axis] = size
    return tuple(sizes)


def fill(target: Array, array: Array, info: TensorInfo) -> None:
    """Writes `array` into the larger `target`: the padded axis with the pad value, padding rows like the last one."""
    corner(target, array.shape)[...] = array
    fill_rest(target, array.shape, info)


def corner(target: Array, shape: tuple[int, ...]) -> Array:
    """The part of the larger `target` that holds an array of this shape: itself, or a view."""
    return target if target.shape == shape else target[tuple(map(slice, shape))]


def fill_rest(target: Array, shape: tuple[int, ...], info: TensorInfo) -> None:
    """Fills what of `target` lies beyond an array of this shape.

    A copy of a row is always a row that the graph takes; rows of zeros may be none (a mask of zeros divides by 0).
    """
    if target.shape == shape:
        return
    if info.pad_axis is not None and target.shape[info.pad_axis] > shape[info.pad_axis]:
        target[_up_to(target.ndim, info.pad_axis, shape[info.pad_axis], None)] = info.pad_value
    if info.batch_axis is not None and target.shape[info.batch_axis] > shape[info.batch_axis]:
        rows = shape[info.batch_axis]
        last = target[_up_to(target.ndim, info.batch_axis, rows - 1, rows)]
        target[_up_to(target.ndim, info.batch_axis, rows, None)] = last


def cut(outputs: Tensors, signature: Signature, rows: int, size: int, padded_size: int) -> Tensors:
    """The outputs without the rows of padding and what stands for padding along the padded axis: views."""
    return {name: _cut(array, signature.outputs[name], rows, size, padded_size) for name, array in outputs.items()}


def _cut(array: Array, info: TensorInfo, rows: int, size: int, padded_size: int) -> Array:
    if info.batch_axis is not None:
        array = array[_up_to(array.ndim, info.batch_axis, 0, rows)]
    if info.pad_axis is not None and size < padded_size == array.shape[info.pad_axis]:
        array = array[_up_to(array.ndim, info.pad_axis, 0, size)]
    return array


def _up_to(dimensions: int, axis: int, start: int, stop: int | None) -> tuple[slice, ...]:
    place = [slice(None)] * dimensions
    place[axis] = slice(start, stop)
    return tuple(place)


def _next(steps: Sequence[int], value: int) -> int:
    at = bisect_left(steps, value)
    return steps[at] if at < len(steps) else value


def rows_and_size(shapes: Mapping[str, tuple[int, ...]], signature: Signature) -> tuple[int, int] | None:
    """Of a batch of so large inputs: rows (1 without a batch axis), size along the padded axis (0 without one).

    None when inputs differ along their padded axes: one of length 1 may be meant for all positions of the others, and
    padding it would hide them.
    """
    rows, sizes = 1, set()
    for name, shape in shapes.items():
        info = signature.inputs[name]
        if info.batch_axis is not None:
            rows = shape[info.batch_axis]
        if info.pad_axis is not None:
            sizes.add(shape[info.pad_axis])
    return (rows, max(sizes, default=0)) if len(sizes) <= 1 else None
