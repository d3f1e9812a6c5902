"""Reads the weights of a CTranslate2 `model.bin`.

The format (OpenNMT/CTranslate2, `python/ctranslate2/specs/model_spec.py`, little-endian): version,
name and revision of the specification, then each variable's name, shape, type and bytes, then
aliases. Texts are prefixed by their length and end with a NUL.
"""

import struct
from pathlib import Path

import numpy as np

from ortmesh.catalogue.recipes._graph import Array

_DTYPES = {0: "<f4", 1: "|i1", 2: "<i2", 3: "<i4", 4: "<f2"}
VERSIONS = (5, 6)


def read_weights(*parts: Path) -> dict[str, Array]:
    """The variables of a file (its parts, in order), as stored; an alias is the same array under a second name."""
    file = _Reader(b"".join(part.read_bytes() for part in parts))
    version = file.number("<I")
    if version not in VERSIONS:
        raise ValueError(f"{parts[0].name} has CTranslate2's format {version}, known are {VERSIONS}")
    file.text()  # the specification's name
    file.number("<I")  # and revision
    variables = dict(file.variable() for _ in range(file.number("<I")))
    for _ in range(file.number("<I")):
        alias, name = file.text(), file.text()
        variables[alias] = variables[name]
    return variables


class _Reader:
    """Takes one value after the other from a buffer; struct and NumPy refuse to read past its end."""

    def __init__(self, buffer: bytes) -> None:
        self._buffer = buffer
        self._offset = 0

    def number(self, layout: str) -> int:
        (value,) = struct.unpack_from(layout, self._buffer, self._offset)
        self._offset += struct.calcsize(layout)
        return int(value)

    def text(self) -> str:
        (value,) = struct.unpack_from(f"{self.number('<H')}s", self._buffer, self._offset)
        self._offset += len(value)
        return str(value.rstrip(b"\0"), "utf-8")

    def variable(self) -> tuple[str, Array]:
        name = self.text()
        shape = [self.number("<I") for _ in range(self.number("<B"))]
        dtype = np.dtype(_DTYPES[self.number("<B")])
        count = self.number("<I") // dtype.itemsize
        values = np.frombuffer(self._buffer, dtype, count, self._offset)
        self._offset += values.nbytes
        return name, values.reshape(shape)
