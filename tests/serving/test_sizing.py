"""What makes an item costly: its length, its elements, or nothing."""

from __future__ import annotations

import numpy as np
import pytest

from ortmesh.serving.signature import Signature, TensorInfo
from ortmesh.serving.sizing import UNIT, Sizing
from ortmesh.serving.types import Array


def info(shape: tuple[int, ...], pad_axis: int | None = None, batch_axis: int | None = 0) -> TensorInfo:
    return TensorInfo("x", "FP32", np.dtype(np.float32), shape, batch_axis, pad_axis=pad_axis)


def zeros(*shape: int) -> dict[str, Array]:
    return {"x": np.zeros(shape, np.float32)}


TEXTS = Sizing(Signature({"x": info((-1, -1), pad_axis=1)}, {}), 16)
PICTURES = Sizing(Signature({"x": info((-1, 3, -1, -1))}, {}), 3 * 32 * 32)
PORTRAITS = Sizing(Signature({"x": info((-1, 3, 224, 224))}, {}), 3 * 224 * 224)


def test_what_may_be_padded_has_its_length() -> None:
    assert TEXTS.sized
    assert [TEXTS.of(zeros(rows, length)) for rows, length in [(1, 7), (5, 7), (1, 300)]] == [7, 7, 300]


def test_what_varies_and_is_not_padded_has_its_elements_in_relation_to_the_samples() -> None:
    assert PICTURES.sized
    assert PICTURES.of(zeros(1, 3, 32, 32)) == UNIT
    assert PICTURES.of(zeros(4, 3, 32, 32)) == UNIT
    assert PICTURES.of(zeros(1, 3, 64, 64)) == 4 * UNIT
    assert PICTURES.of(zeros(1, 3, 1, 1)) == 1
    assert PICTURES.measurable == (UNIT,)


def test_what_has_one_shape_has_no_size() -> None:
    assert not PORTRAITS.sized
    assert PORTRAITS.of(zeros(2, 3, 224, 224)) == 0
    assert PORTRAITS.sizes == PORTRAITS.measurable == (1,)


def test_without_a_sample_there_is_nothing_to_relate_to() -> None:
    unknown = Sizing(PICTURES.signature)
    assert not unknown.sized
    assert unknown.of(zeros(1, 3, 9, 9)) == 0


@pytest.mark.parametrize("sizing", [TEXTS, PICTURES, PORTRAITS], ids=["texts", "pictures", "portraits"])
def test_what_can_be_measured_is_among_the_sizes_that_are_told_apart(sizing: Sizing) -> None:
    assert set(sizing.measurable) <= set(sizing.sizes)
    assert list(sizing.sizes) == sorted(sizing.sizes)


def test_a_batch_axis_elsewhere_is_no_free_shape() -> None:
    assert not Sizing(Signature({"x": info((2, -1, 128), batch_axis=1)}, {}), 256).sized
