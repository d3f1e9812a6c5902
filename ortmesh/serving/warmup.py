"""Warm-up: sample items run alone and together must agree, or the model is served so that they do. Stage: executor.

A named batch dimension does not prove that rows are independent: a graph that subtracts the batch's mean looks
batchable, and a dynamically quantized one takes one scale for all rows. So warm-up asks the model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from ortmesh.errors import OrtmeshError
from ortmesh.serving.signature import Signature, TensorInfo
from ortmesh.serving.types import Array, Item, Tensors

SIZES = (16, 8, 32, 64, 224, 128, 1, 3)
"""Sizes tried for free dimensions that no card describes."""
SAMPLES = 3

RunItems = Callable[[Sequence[Item]], None]
MakeItem = Callable[[Tensors, "Capture"], Item]


class Mode(Enum):
    """How items of a model may share a batch."""

    TOGETHER = "together"
    EQUAL_SIZES = "equal sizes only"
    ALONE = "one at a time"


@dataclass(frozen=True, slots=True)
class Finding:
    """What warm-up found: the mode, and why when it is not the one that the signature suggests."""

    mode: Mode
    reason: str = ""


class Capture:
    """An item's answer, kept; also its owner, who never leaves."""

    admitted = cancelled = False

    def __init__(self) -> None:
        self.outputs: Tensors | None = None
        self.error: BaseException | None = None

    def emit(self, outputs: Tensors) -> None:
        """Pieces are not compared."""

    def finish(self, outputs: Tensors) -> None:
        """Keeps a copy: the arrays may be views into a batch."""
        self.outputs = {name: np.array(array) for name, array in outputs.items()}

    def fail(self, error: BaseException) -> None:
        """Keeps the error."""
        self.error = error


def probe(
    run: RunItems,
    make_item: MakeItem,
    signature: Signature,
    given: Sequence[Tensors],
    *,
    max_rows: int,
    tolerance: float,
) -> Finding:
    """Finds out how items may share a batch, by running samples (`given`, or made up from the signature)."""
    if not signature.stackable:
        return _first_run(
            run, make_item, given or _first_that_runs(run, make_item, signature), "a tensor has no batch axis"
        )
    samples = list(given) or _first_that_runs(run, make_item, signature)
    if not samples:
        return Finding(Mode.ALONE, "no sample satisfies the graph, so batching could not be tried")
    if max_rows == 1:
        return _first_run(run, make_item, samples, "the card says so")
    alone = [_run_one(run, make_item, sample) for sample in samples]
    if any(outputs is None for outputs in alone):
        return Finding(Mode.ALONE, "a sample failed alone")
    return _compare(
        run, make_item, samples, [outputs for outputs in alone if outputs is not None], signature, tolerance
    )


def _first_run(run: RunItems, make_item: MakeItem, samples: Sequence[Tensors], reason: str) -> Finding:
    for sample in samples[:1]:
        _run_one(run, make_item, sample)
    return Finding(Mode.ALONE, reason)


def _compare(
    run: RunItems,
    make_item: MakeItem,
    samples: Sequence[Tensors],
    alone: Sequence[Tensors],
    signature: Signature,
    tolerance: float,
) -> Finding:
    """Equal sizes first (each sample beside copies of its own shape), then all together, in one order and another."""
    for index, group in enumerate(_equal_groups(samples)):
        if not _agree(run, make_item, [samples[i] for i in group], [alone[i] for i in group], tolerance):
            return Finding(Mode.ALONE, f"results depended on the rest of the batch (sample group {index})")
    if len(_equal_groups(samples)) == 1:
        return Finding(Mode.TOGETHER)
    order = list(range(len(samples)))
    for arranged in (order, order[::-1]):
        if not _agree(run, make_item, [samples[i] for i in arranged], [alone[i] for i in arranged], tolerance):
            return Finding(Mode.EQUAL_SIZES, "results depended on padding")
    return Finding(Mode.TOGETHER)


def _equal_groups(samples: Sequence[Tensors]) -> list[list[int]]:
    groups: dict[tuple[tuple[int, ...], ...], list[int]] = {}
    for index, sample in enumerate(samples):
        groups.setdefault(tuple(array.shape for array in sample.values()), []).append(index)
    return list(groups.values())


def _agree(
    run: RunItems, make_item: MakeItem, samples: Sequence[Tensors], alone: Sequence[Tensors], tolerance: float
) -> bool:
    together = _run_together(run, make_item, samples)
    if together is None:
        return False
    backwards = _run_together(run, make_item, samples[::-1])
    if backwards is None:
        return False
    pairs = [*zip(alone, together, strict=True), *zip(alone, backwards[::-1], strict=True)]
    return all(equal(one, other, tolerance) for one, other in pairs)


def equal(one: Tensors, other: Tensors, tolerance: float) -> bool:
    """True when all tensors agree: numbers within the tolerance (absolute plus relative), everything else exactly."""
    return one.keys() == other.keys() and all(_close(array, other[name], tolerance) for name, array in one.items())


def _close(one: Array, other: Array, tolerance: float) -> bool:
    if one.shape != other.shape:
        return False
    if one.dtype.kind in "fc":
        return bool(np.allclose(one, other, rtol=tolerance, atol=tolerance, equal_nan=True))
    return bool(np.array_equal(one, other))


def _run_one(run: RunItems, make_item: MakeItem, sample: Tensors) -> Tensors | None:
    outputs = _run_together(run, make_item, [sample])
    return outputs[0] if outputs else None


def _run_together(run: RunItems, make_item: MakeItem, samples: Sequence[Tensors]) -> list[Tensors] | None:
    """The outputs of samples run as one batch; None when one failed for its input. Other errors are raised."""
    captures = [Capture() for _ in samples]
    run([make_item(sample, capture) for sample, capture in zip(samples, captures, strict=True)])
    for capture in captures:
        if capture.error is not None and not isinstance(capture.error, OrtmeshError):
            raise capture.error
    results = [capture.outputs for capture in captures if capture.outputs is not None]
    return results if len(results) == len(samples) else None


def _first_that_runs(run: RunItems, make_item: MakeItem, signature: Signature) -> list[Tensors]:
    """Samples of the first made-up shape that the graph takes; none when it takes no one."""
    for samples in candidates(signature):
        if _run_one(run, make_item, samples[0]) is not None:
            return samples
    return []


def candidates(signature: Signature) -> Iterator[list[Tensors]]:
    """Made-up samples, one list a try: the card's shapes and ranges, else small values in usual sizes."""
    random = np.random.default_rng(20240229)
    free = any(_free_axes(info) for info in signature.inputs.values())
    for size in SIZES if free else SIZES[:1]:
        lengths = [size, size, max(size // 2, 1)] if signature.padded else [size] * SAMPLES
        yield [{name: _sample(info, length, random) for name, info in signature.inputs.items()} for length in lengths]


def _free_axes(info: TensorInfo) -> list[int]:
    return [
        axis
        for axis, size in enumerate(info.shape)
        if size == -1 and axis != info.batch_axis and info.sample_shape is None
    ]


def _sample(info: TensorInfo, size: int, random: np.random.Generator) -> Array:
    if info.sample_shape is not None:
        shape = info.sample_shape
        if info.pad_axis is not None and size < SIZES[0]:
            shape = tuple(max(length // 2, 1) if axis == info.pad_axis else length for axis, length in enumerate(shape))
    else:
        shape = tuple(
            1 if axis == info.batch_axis else size if length == -1 else length for axis, length in enumerate(info.shape)
        )
    return _values(info, shape, random)


def _values(info: TensorInfo, shape: tuple[int, ...], random: np.random.Generator) -> Array:
    """Numbers in the card's range; else normal floats, 0 or 1 for the rest. Shared tensors are equal in all samples."""
    if info.datatype == "BYTES":
        return np.full(shape, "a", dtype=object)
    if info.datatype == "BF16":  # bits of 1.0, or of -1.0
        return random.choice(np.array([0x3F80, 0xBF80], np.uint16), size=shape)
    if info.shared:
        low = info.sample_range[0] if info.sample_range else 1
        return np.full(shape, low, dtype=info.dtype)
    if info.sample_range is not None:
        low, high = info.sample_range
        if info.dtype.kind in "iu":
            return random.integers(math.floor(low), max(math.ceil(high), math.floor(low) + 1), size=shape).astype(
                info.dtype
            )
        return random.uniform(low, high, size=shape).astype(info.dtype)
    if info.dtype.kind == "f":
        return random.standard_normal(shape).astype(info.dtype)
    return random.integers(0, 2, size=shape).astype(info.dtype)
