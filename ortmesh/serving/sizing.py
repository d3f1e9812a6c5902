"""Sizing: what makes one item of a model costlier than another, as one whole number. Stage: batcher."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ortmesh.serving.signature import Signature
from ortmesh.serving.types import Tensors

LENGTHS = (8, 64, 16, 32, 128, 256, 512)
"""Of items that may be padded, in the order in which they are worth knowing: what lies between two is known too."""
UNIT = 16
"""The size of warm-up's sample where shapes vary and nothing may be padded; twice the elements are twice the size."""
MAX_SIZE = 65536
AREAS = (4, 16, 64, 256, 1024)


@dataclass(frozen=True, slots=True)
class Sizing:
    """How items of one model are sized: by length, by number of elements, or not at all."""

    signature: Signature
    sample_elements: int = 0
    """Of one row of warm-up's sample, all inputs together; 0 where there was none."""

    @property
    def sized(self) -> bool:
        """False when all items cost the same: nothing is to be chosen among them."""
        return self.signature.padded or self._free

    @property
    def sizes(self) -> tuple[int, ...]:
        """Ascending: where costs are told apart."""
        return tuple(sorted(LENGTHS)) if self.signature.padded else AREAS if self._free else (1,)

    @property
    def max_size(self) -> int:
        """Larger items count as so large."""
        return MAX_SIZE if self.sized else 1

    @property
    def measurable(self) -> tuple[int, ...]:
        """The sizes that warm-up's sample can be given, the most telling first."""
        return LENGTHS if self.signature.padded else (UNIT,) if self._free else (1,)

    def of(self, tensors: Tensors) -> int:
        """The length along the axis that may be padded, e.g. tokens; else the elements of a row in relation to the
        sample's; 0 when all items cost the same."""
        if self.signature.padded:
            return length_of(tensors, self.signature)
        if not self._free:
            return 0
        return max(1, math.ceil(UNIT * elements_of(tensors, self.signature) / self.sample_elements))

    @property
    def _free(self) -> bool:
        """True where shapes vary, rows apart."""
        return self.sample_elements > 0 and any(
            size < 0
            for info in self.signature.inputs.values()
            for axis, size in enumerate(info.shape)
            if axis != info.batch_axis
        )


def length_of(tensors: Tensors, signature: Signature) -> int:
    """The length along the axis that may be padded, e.g. tokens; 0 when there is none."""
    for name, array in tensors.items():
        axis = signature.inputs[name].pad_axis
        if axis is not None:
            return int(array.shape[axis])
    return 0


def rows_of(tensors: Tensors, signature: Signature) -> int:
    """Rows along the batch axis; 1 when no tensor has one."""
    for name, array in tensors.items():
        axis = signature.inputs[name].batch_axis
        if axis is not None:
            return int(array.shape[axis])
    return 1


def elements_of(tensors: Tensors, signature: Signature) -> int:
    """Elements of one row, all inputs together."""
    return sum(array.size for array in tensors.values()) // max(rows_of(tensors, signature), 1)
