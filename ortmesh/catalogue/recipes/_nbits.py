"""Matrices of 8 bits as MatMulNBits multiplies with them: codes, and a scale for each block of a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ortmesh.catalogue.recipes._graph import Array

BLOCK = 64
"""Numbers that share a scale: a quarter quicker than 32, and as exact within what rounded activations leave."""

MIDDLE = 128
"""The code of zero, which MatMulNBits takes when it is told no other."""


@dataclass(frozen=True)
class NBits:
    """A matrix [rows, columns] of numbers `scale * (code - 128)`; columns are a multiple of the block."""

    codes: Array  # u8 [rows, blocks, block]
    scales: Array  # f32 [rows, blocks]

    @property
    def rows(self) -> int:
        """How many outputs a product with it has."""
        return int(self.codes.shape[0])

    @property
    def block(self) -> int:
        """How many numbers of a row share a scale."""
        return int(self.codes.shape[2])

    @property
    def columns(self) -> int:
        """How many inputs a product with it takes."""
        return int(self.codes.shape[1]) * self.block

    def numbers(self) -> Array:
        """f32 [rows, columns]."""
        centred = self.codes.astype(np.float32) - np.float32(MIDDLE)
        return np.asarray(centred * self.scales[:, :, None]).reshape(self.rows, self.columns)


def joined(parts: Sequence[NBits]) -> NBits:
    """One matrix with the rows of all, in order: one product where they have the same inputs."""
    return NBits(np.concatenate([part.codes for part in parts]), np.concatenate([part.scales for part in parts]))


def rounded(numbers: Array) -> NBits:
    """f32 [rows, columns] at the nearest of 255 levels around zero, by each block's largest."""
    blocks = numbers.reshape(len(numbers), -1, BLOCK)
    largest = np.abs(blocks).max(axis=2)
    scales = np.where(largest > 0, largest / np.float32(MIDDLE - 1), np.float32(1))
    codes = np.rint(blocks / scales[:, :, None]) + MIDDLE
    return NBits(codes.astype(np.uint8), scales)
