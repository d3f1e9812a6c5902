"""Vectors travel as numbers or as little-endian bytes."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from ortmesh.common.v1 import common_pb2
from ortmesh.errors import BadInput
from ortmesh.serving.vectors import embedding, unit

VECTOR = np.array([0.5, -2, 1 / 3], np.float32)


@pytest.mark.parametrize(
    "encoding", [common_pb2.VECTOR_ENCODING_UNSPECIFIED, common_pb2.VECTOR_ENCODING_FLOATS], ids=["default", "floats"]
)
def test_numbers_are_exact(encoding: int) -> None:
    message = embedding(VECTOR, encoding, True)
    assert list(message.values) == VECTOR.tolist()
    assert (message.dimension, message.normalized, message.packed) == (3, True, b"")


def test_bytes_are_little_endian() -> None:
    single = embedding(VECTOR, common_pb2.VECTOR_ENCODING_FLOAT32_BYTES, False)
    half = embedding(VECTOR, common_pb2.VECTOR_ENCODING_FLOAT16_BYTES, False)
    assert single.packed == struct.pack("<3f", *VECTOR.tolist())
    assert half.packed == struct.pack("<3e", *VECTOR.tolist())
    assert (half.dimension, half.normalized, list(half.values)) == (3, False, [])


def test_halves_are_rounded_to_the_nearest_even() -> None:
    """2049 lies between 2048 and 2050, 2051 between 2050 and 2052."""
    packed = embedding(np.array([2049, 2051], np.float32), common_pb2.VECTOR_ENCODING_FLOAT16_BYTES, False).packed
    assert struct.unpack("<2e", packed) == (2048, 2052)


def test_wider_numbers_are_sent_as_floats() -> None:
    assert list(embedding(np.array([0.1]), common_pb2.VECTOR_ENCODING_FLOATS, False).values) == [np.float32(0.1)]


def test_an_unknown_encoding_is_refused() -> None:
    with pytest.raises(BadInput, match=r"^encoding: 4 "):
        embedding(VECTOR, 4, True)


def test_a_vector_of_zeros_stays_one() -> None:
    assert unit(np.zeros(3, np.float32)).tolist() == [0, 0, 0]
    assert unit(np.array([3, 4], np.float32)).tolist() == pytest.approx([0.6, 0.8])


def test_halves_whose_squares_overflow_get_length_1() -> None:
    assert unit(np.array([3e4, 4e4], np.float16)).tolist() == pytest.approx([0.6, 0.8], rel=1e-3)
