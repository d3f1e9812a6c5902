"""Reads a quantized supervised fastText model (`.ftz`), executing nothing of it.

The format (facebookresearch/fastText, `fasttext.cc`, `dictionary.cc`, `quantmatrix.cc`, `productquantizer.cc`;
little-endian): a magic number and a version, the arguments, the dictionary, the matrix of inputs (product-quantized)
and the matrix of outputs.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ortmesh.catalogue.recipes._graph import Array

MAGIC = 793712314
VERSIONS = (11, 12)
HIERARCHICAL_SOFTMAX = 1
SUPERVISED = 3
CENTROIDS = 256  # of each subspace: a code is a byte

_ARGUMENTS = (
    "dim", "ws", "epoch", "min_count", "neg", "word_ngrams", "loss", "model", "bucket", "minn", "maxn", "lr_update",
)  # fmt: skip
_WORD = 0


@dataclass(frozen=True)
class FastText:
    """A model as its file has it."""

    arguments: dict[str, int]
    words: tuple[str, ...]
    """The rows of `inputs` before those of the n-grams."""
    labels: tuple[str, ...]
    """Most frequent first, without their prefix."""
    label_counts: tuple[int, ...]
    ngrams: tuple[int, ...]
    """The hash buckets that were kept; that at i has the row len(words) + i of `inputs`."""
    inputs: Array
    """f32 [len(words) + len(ngrams), dim]."""
    outputs: Array
    """f32 [labels, dim]; with hierarchical softmax the row of an inner node of the tree."""


def read_model(path: Path) -> FastText:
    """A model whose n-grams were pruned and whose inputs were quantized. ValueError when the file is something else."""
    file = _Reader(path.read_bytes())
    magic, version = file.numbers("<ii")
    if magic != MAGIC or version not in VERSIONS:
        raise ValueError(f"{path.name} is no fastText model of version {VERSIONS}")
    arguments = dict(zip(_ARGUMENTS, file.numbers("<12i"), strict=True))
    file.numbers("<d")  # the sampling threshold of training
    size, word_count, label_count, _, pruned = file.numbers("<iiiqq")
    entries = [(file.text(), *file.numbers("<qb")) for _ in range(size)]
    words, labels = entries[:word_count], entries[word_count:]
    if len(labels) != label_count or any(kind != _WORD for _, _, kind in words):
        raise ValueError(f"{path.name}: the words of its dictionary do not stand before its {label_count} labels")
    ngrams = _in_order([file.numbers("<ii") for _ in range(pruned)])
    inputs = file.quantized() if file.flag() else None
    if inputs is None or inputs.shape != (len(words) + len(ngrams), arguments["dim"]):
        raise ValueError(f"{path.name}: its input matrix is not quantized and pruned")
    return FastText(
        arguments=arguments,
        words=tuple(word for word, _, _ in words),
        labels=tuple(label.removeprefix("__label__") for label, _, _ in labels),
        label_counts=tuple(count for _, count, _ in labels),
        ngrams=ngrams,
        inputs=inputs,
        outputs=file.quantized() if file.flag() else file.matrix(),
    )


def _in_order(pairs: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """Pairs of bucket and row as buckets by row."""
    buckets = {row: bucket for bucket, row in pairs}
    return tuple(buckets[row] for row in range(len(pairs)))


class _Reader:
    """Takes one value after the other from a buffer; struct and NumPy refuse to read past its end."""

    def __init__(self, buffer: bytes) -> None:
        self._buffer = buffer
        self._offset = 0

    def numbers(self, layout: str) -> tuple[Any, ...]:
        values = struct.unpack_from(layout, self._buffer, self._offset)
        self._offset += struct.calcsize(layout)
        return values

    def flag(self) -> bool:
        return bool(self.numbers("<?")[0])

    def text(self) -> str:
        end = self._buffer.index(b"\0", self._offset)
        value = self._buffer[self._offset : end]
        self._offset = end + 1
        return str(value, "utf-8")

    def array(self, dtype: npt.DTypeLike, count: int) -> Array:
        values = np.frombuffer(self._buffer, dtype, count, self._offset)
        self._offset += values.nbytes
        return values

    def matrix(self) -> Array:
        """Plain numbers, f32 [rows, columns]."""
        rows, columns = self.numbers("<qq")
        return self.array("<f4", rows * columns).reshape(rows, columns)

    def quantized(self) -> Array:
        """A product-quantized matrix (Jégou et al., 2011) as f32 [rows, columns].

        A row is a code a subspace, each naming a centroid, and perhaps a code of its norm.
        """
        (has_norms,) = self.numbers("<?")
        rows, columns = self.numbers("<qq")
        (count,) = self.numbers("<i")
        codes = self.array("<u1", count).reshape(rows, -1)
        values = _decoded(codes, self.centroids())
        if values.shape != (rows, columns):
            raise ValueError(f"a quantized matrix of {values.shape} should be {(rows, columns)}")
        if has_norms:
            codes = self.array("<u1", rows).reshape(rows, 1)
            values = values * _decoded(codes, self.centroids())
        return values

    def centroids(self) -> list[Array]:
        """The centroids of each subspace, f32 [256, its dimensions]; the last one may have fewer."""
        dim, subspaces, width, last = self.numbers("<iiii")
        values = self.array("<f4", dim * CENTROIDS)
        widths = [width] * (subspaces - 1) + [last]
        bounds = np.cumsum(widths)[:-1] * CENTROIDS
        return [part.reshape(CENTROIDS, -1) for part in np.split(values, bounds)]


def _decoded(codes: Array, centroids: Sequence[Array]) -> Array:
    """Codes u8 [rows, subspaces] as the centroids that they name, side by side."""
    return np.concatenate([part[codes[:, i]] for i, part in enumerate(centroids)], axis=1)
