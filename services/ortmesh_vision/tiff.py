"""The walk along a TIFF's directories and their tags, as Pillow finds them; Exif is one, too. Stage: task."""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple

MAGIC = (b"II*\0", b"MM\0*", b"II\0*", b"MM*\0", b"II+\0", b"MM\0+")
"""All that Pillow takes, two that are wrong among them."""
_BIG = 43


class Tag(NamedTuple):
    """An entry of a directory."""

    number: int
    kind: int
    values: int
    value: int
    """Or where it stands."""


class Tiff:
    """A file by its directories. Whatever leaves the file is not there."""

    def __init__(self, data: bytes) -> None:
        """`data` begins with one of MAGIC."""
        order = "<" if data[:1] == b"I" else ">"
        # Pillow looks at this byte alone, so that a big one of Motorola's order is none to it.
        big = data[2] == _BIG
        self._data = data
        self._count, self._offset = (Struct(f"{order}{each}") for each in ("QQ" if big else "HI"))
        self._entry = Struct(f"{order}HHQQ" if big else f"{order}HHII")
        self.first = self._number(self._offset, 8 if big else 4)
        """Where the first directory stands."""

    def tags(self, at: int) -> Iterator[Tag]:
        """The entries of the directory at a place."""
        place, size = at + self._count.size, self._entry.size
        for _ in range(min(self._number(self._count, at), (len(self._data) - place) // size)):
            yield Tag._make(self._entry.unpack_from(self._data, place))
            place += size

    def chain(self) -> Iterator[int]:
        """Where the directories stand, one for each page; a chain that bites its tail ends there."""
        seen, at = set[int](), self.first
        while at and at + self._count.size <= len(self._data) and at not in seen:
            yield at
            seen.add(at)
            entries = self._number(self._count, at)
            at = self._number(self._offset, at + self._count.size + entries * self._entry.size)

    def _number(self, kind: Struct, at: int) -> int:
        """0 behind the end."""
        if at + kind.size > len(self._data):
            return 0
        (number,) = kind.unpack_from(self._data, at)
        return int(number)
