"""Buckets: the shapes that batches are padded to, and what is cut off again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ortmesh.serving.cards import Batching, Card, Runtime
from ortmesh.serving.cards import Buckets as Written
from ortmesh.serving.executor.buckets import Buckets, buckets_of, cut, fill, padded_shape, powers_of_two
from ortmesh.serving.signature import Signature, TensorInfo

TEXT = TensorInfo("x", "INT64", np.dtype(np.int64), (-1, -1), 0, pad_axis=1, pad_value=7)
BUCKETS = Buckets([1, 4, 8], [8, 16])


@pytest.mark.parametrize(
    ("rows", "size", "bucket"), [(1, 1, (1, 8)), (2, 8, (4, 8)), (5, 9, (8, 16)), (9, 17, (9, 17)), (8, 0, (8, 8))]
)
def test_a_batch_is_padded_to_the_smallest_bucket_that_holds_it(rows: int, size: int, bucket: tuple[int, int]) -> None:
    assert BUCKETS.fit(rows, size) == bucket


def test_sizes_stay_where_padding_would_change_results() -> None:
    assert buckets_of(Card(name="m", family="nlp"), pad_sizes=False).fit(3, 13) == (4, 13)


def test_a_card_that_names_no_buckets_has_powers_of_two_up_to_its_most_rows() -> None:
    card = Card(name="m", family="nlp", batching=Batching(max_rows=12))
    buckets = buckets_of(card, pad_sizes=True)
    assert list(buckets.rows) == [1, 2, 4, 8, 12]
    assert list(buckets.sizes) == [8, 16, 32, 64, 128, 256, 512]


def test_a_card_names_its_own_and_one_row_is_always_there() -> None:
    written = Runtime(buckets=Written(rows=[16, 4, 99], sizes=[64, 32]))
    buckets = buckets_of(Card(name="m", family="nlp", runtime=written), pad_sizes=True)
    assert list(buckets.rows) == [1, 4, 16], "not more than max_rows"
    assert list(buckets.sizes) == [32, 64]


def test_a_card_can_not_ask_for_more_recordings_than_memory_is_kept_for() -> None:
    with pytest.raises(ValidationError, match="more than 64"):
        Written(rows=list(range(1, 10)), sizes=list(range(1, 9)))


@given(st.integers(1, 4096))
def test_powers_of_two_rise_from_one_to_the_most(most: int) -> None:
    steps = powers_of_two(most)
    assert steps[0] == 1
    assert steps[-1] == most
    assert steps == sorted(set(steps))


@given(st.integers(1, 8), st.integers(1, 16))
def test_what_is_padded_and_cut_is_what_it_was(rows: int, size: int) -> None:
    many, long = BUCKETS.fit(rows, size)
    array = np.arange(rows * size).reshape(rows, size)
    padded = np.full(padded_shape(TEXT, array.shape, many, long), -1)
    fill(padded, array, TEXT)
    np.testing.assert_array_equal(padded[:rows, size:], 7)
    np.testing.assert_array_equal(padded[rows:], np.broadcast_to(padded[rows - 1], (many - rows, long)))
    again = cut({"x": padded}, Signature({"x": TEXT}, {"x": TEXT}), rows, size, long)
    np.testing.assert_array_equal(again["x"], array)
