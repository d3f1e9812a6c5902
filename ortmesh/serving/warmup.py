"""Warm-up: sample items run alone and together must agree, or the model is served so that they do. Stage: executor.

A named batch dimension does not prove that rows are independent: a graph that subtracts the batch's mean looks
batchable, and a dynamically quantized one takes one scale for all rows. So warm-up asks the model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np

from ortmesh.errors import OrtmeshError
from ortmesh.serving.signature import Signature, TensorInfo
from ortmesh.serving.types import Array, Item, Tensors

SIZES = (16, 8, 32, 64, 224, 128, 1, 3)
"""Sizes tried for free dimensions that no card describes."""
MAGNITUDES = (1.0, 10.0, 100.0)
"""Of the samples' numbers, where no card gives a range."""
WORDS = ("one", "two", "three", "four", "five", "six", "seven")
"""Of the samples' texts."""
MOST_ELEMENTS = 1 << 26
"""Of a sample's tensor, 0.5 GB while it is drawn: five free dimensions of 224 would be 20 GB a row."""

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
    proof: Tensors | None = None
    """A sample that the model computed: while it still does, the executor is sound. None when none was found."""


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
    proof: Tensors | None = None
    for samples in [given] if given else candidates(signature):
        alone = _all_alone(run, make_item, samples, only_first=max_rows == 1 or not signature.stackable)
        if alone is None:
            continue
        proof = samples[0]
        if not signature.stackable:
            return Finding(Mode.ALONE, "a tensor has no batch axis", proof)
        if max_rows == 1:
            return Finding(Mode.ALONE, "the card says so", proof)
        finding = _compare(run, make_item, samples, alone, max_rows, tolerance)
        if finding.mode is not Mode.TOGETHER or _tell_something(alone):
            return replace(finding, proof=proof)
    if proof is not None:
        return Finding(Mode.ALONE, "no sample's result told whether batching changes it", proof)
    return Finding(Mode.ALONE, "no sample satisfies the graph, so batching could not be tried")


def _all_alone(
    run: RunItems, make_item: MakeItem, samples: Sequence[Tensors], *, only_first: bool
) -> list[Tensors] | None:
    """What each sample gives by itself; None when one fails."""
    alone: list[Tensors] = []
    for sample in samples[:1] if only_first else samples:
        outputs = _run_together(run, make_item, [sample])
        if outputs is None:
            return None
        alone += outputs
    return alone


def _tell_something(alone: Sequence[Tensors]) -> bool:
    """True when some output is a number and differs between samples: only then can a batch be seen to change it."""
    return any(_differs([outputs[name] for outputs in alone]) for name in alone[0])


def _differs(arrays: Sequence[Array]) -> bool:
    if any(array.dtype.kind in "fc" and not np.isfinite(array).any() for array in arrays):
        return False
    first = arrays[0]
    return any(array.shape != first.shape or not np.array_equal(array, first) for array in arrays[1:])


def _compare(
    run: RunItems,
    make_item: MakeItem,
    samples: Sequence[Tensors],
    alone: Sequence[Tensors],
    max_rows: int,
    tolerance: float,
) -> Finding:
    """Equal sizes first, each group twice over, then all together, in one order and the other."""
    for group in _equal_groups(samples):
        repeated = (group * 2)[:max_rows]
        if not _agree(run, make_item, [samples[i] for i in repeated], [alone[i] for i in repeated], tolerance):
            return Finding(Mode.ALONE, "results depended on the rest of the batch")
    if len(_equal_groups(samples)) > 1 and not _agree(run, make_item, samples, alone, tolerance):
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
    """True when all tensors agree: numbers within the tolerance of the largest of them, everything else exactly."""
    return one.keys() == other.keys() and all(_close(array, other[name], tolerance) for name, array in one.items())


def _close(one: Array, other: Array, tolerance: float) -> bool:
    if one.shape != other.shape:
        return False
    if one.dtype.kind not in "fc":
        return bool(np.array_equal(one, other))
    finite = np.abs(one[np.isfinite(one)])
    scale = float(finite.max()) if finite.size else 0.0
    return bool(np.allclose(other, one, rtol=0, atol=tolerance * scale, equal_nan=True))


def _run_together(run: RunItems, make_item: MakeItem, samples: Sequence[Tensors]) -> list[Tensors] | None:
    """The outputs of samples run as one batch; None when one failed for its input. Other errors are raised."""
    captures = [Capture() for _ in samples]
    run([make_item(sample, capture) for sample, capture in zip(samples, captures, strict=True)])
    for capture in captures:
        if capture.error is not None and not isinstance(capture.error, OrtmeshError):
            raise capture.error
    results = [capture.outputs for capture in captures if capture.outputs is not None]
    return results if len(results) == len(samples) else None


def candidates(signature: Signature) -> Iterator[list[Tensors]]:
    """Made-up samples, one list a try: in the card's shapes and ranges, else in usual sizes, of growing magnitude.

    Samples of different magnitudes show a scale that is taken over the batch; a vocabulary that large numbers leave
    is tried again with small ones.
    """
    random = np.random.default_rng(20240229)
    free = any(_free_axes(info) for info in signature.inputs.values())
    for size in SIZES if free else SIZES[:1]:
        if any(_elements(info, size) > MOST_ELEMENTS for info in signature.inputs.values()):
            continue
        lengths = [size, size, max(size // 2, 1)] if signature.padded else [size] * len(MAGNITUDES)
        for magnitudes in (MAGNITUDES, (1.0,) * len(MAGNITUDES)):
            yield [
                {name: _sample(info, length, magnitude, random) for name, info in signature.inputs.items()}
                for length, magnitude in zip(lengths, magnitudes, strict=True)
            ]


def _free_axes(info: TensorInfo) -> list[int]:
    if info.sample_shape is not None:
        return []
    return [axis for axis, size in enumerate(info.shape) if size == -1 and axis != info.batch_axis]


def _sample(info: TensorInfo, size: int, magnitude: float, random: np.random.Generator) -> Array:
    return _values(info, _shape(info, size), magnitude, random)


def _elements(info: TensorInfo, size: int) -> int:
    return math.prod(_shape(info, size))


def _shape(info: TensorInfo, size: int) -> tuple[int, ...]:
    if info.sample_shape is None:
        return tuple(
            1 if axis == info.batch_axis else size if length == -1 else length for axis, length in enumerate(info.shape)
        )
    if info.pad_axis is None or size >= SIZES[0]:
        return info.sample_shape
    return tuple(
        max(length // 2, 1) if axis == info.pad_axis else length for axis, length in enumerate(info.sample_shape)
    )


def _values(info: TensorInfo, shape: tuple[int, ...], magnitude: float, random: np.random.Generator) -> Array:
    """Numbers in the card's range; else normal floats and small whole numbers, times the magnitude."""
    if info.datatype == "BYTES":
        return random.choice(np.array(WORDS, dtype=object), size=shape)
    if info.shared:  # equal in all samples
        return np.full(shape, info.sample_range[0] if info.sample_range else 1, dtype=info.dtype)
    if info.datatype == "BF16":  # the upper halves of 32-bit floats
        floats = (random.standard_normal(shape) * magnitude).astype(np.float32)
        return (floats.view(np.uint32) >> 16).astype(np.uint16)
    if info.dtype.kind == "f":
        if info.sample_range is None:
            return (random.standard_normal(shape) * magnitude).astype(info.dtype)
        return random.uniform(*info.sample_range, size=shape).astype(info.dtype)
    if info.dtype.kind == "b":
        return random.integers(0, 2, size=shape).astype(info.dtype)
    return _whole_numbers(info, shape, magnitude, random)


def _whole_numbers(info: TensorInfo, shape: tuple[int, ...], magnitude: float, random: np.random.Generator) -> Array:
    low, high = info.sample_range or (0, 2 * magnitude)
    most = np.iinfo(info.dtype).max
    top = min(max(math.ceil(high), math.floor(low) + 2), most)
    return random.integers(math.floor(low), top, size=shape).astype(info.dtype)
