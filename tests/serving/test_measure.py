"""Measuring a model: cells worth knowing, in little time, and nothing that the model refuses."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from ortmesh.serving.executor.measure import LONGEST_SECONDS, ROUNDS, Measuring, batch, plan
from ortmesh.serving.signature import Signature, TensorInfo
from ortmesh.serving.sizing import LENGTHS
from ortmesh.serving.types import Array, Cell

TOKENS = TensorInfo("tokens", "INT64", np.dtype(np.int64), (-1, -1), 0, pad_axis=1)
IMAGE = TensorInfo("image", "FP32", np.dtype(np.float32), (-1, 3, 4, 4), 0)
TEXTS = Signature({"tokens": TOKENS}, {})
IMAGES = Signature({"image": IMAGE}, {})


def cells_of(max_rows: int, cost: Callable[[int, int], float], sizes: tuple[int, ...] = LENGTHS) -> list[Cell]:
    going, cells = plan(max_rows, sizes), list[Cell]()
    try:
        cell = next(going)
        while True:
            cells.append(cell)
            cell = going.send(cost(*cell))
    except StopIteration:
        return cells


def test_batches_grow_while_they_pay() -> None:
    """A device that is full with four rows of eight: the next two batches show it, larger ones are not tried."""
    cells = cells_of(64, lambda rows, size: 0.001 * max(1.0, rows * size / 32), sizes=(8,))
    assert cells == [(1, 8), (2, 8), (4, 8), (8, 8), (16, 8)]


def test_the_cards_largest_batch_is_the_last_even_when_it_is_no_power_of_two() -> None:
    assert [rows for rows, _ in cells_of(12, lambda rows, size: 0.001, sizes=(8,))] == [1, 2, 4, 8, 12]


def test_cells_that_would_hold_up_a_request_are_not_run() -> None:
    cells = cells_of(64, lambda rows, size: 0.002 * rows * size)
    assert max(0.002 * rows * size for rows, size in cells) <= 2 * 2 * LONGEST_SECONDS
    assert (1, 32) in cells
    assert not any(size > 64 for _, size in cells)


def test_a_batch_is_made_of_an_example_that_the_model_takes() -> None:
    tokens: Array = np.array([[5, 6, 7]])
    np.testing.assert_array_equal(batch(TEXTS, {"tokens": tokens}, 2, 5)["tokens"], [[5, 6, 7, 5, 6]] * 2)
    image = np.ones((1, 3, 4, 4), np.float32)
    assert batch(IMAGES, {"image": image}, 8, 1)["image"].shape == (8, 3, 4, 4)


def test_larger_items_than_one_that_the_model_refused_are_not_tried() -> None:
    """A position table of 40, say."""
    tried = set[int]()

    def run(feeds: dict[str, Array]) -> None:
        tried.add(feeds["tokens"].shape[1])
        if feeds["tokens"].shape[1] > 40:
            raise ValueError("index out of range")

    measuring = Measuring(run, TEXTS, {"tokens": np.array([[5, 6, 7]])}, 4, LENGTHS)
    measuring.run(60)
    assert measuring.done
    assert {size for _, size in measuring.seconds} == {8, 16, 32}
    assert tried == {8, 64, 16, 32}
    assert (1, 8) in measuring.seconds


def test_one_long_run_is_enough_to_begin_with() -> None:
    """Under a flood from the first moment on there is no idle time to find out more."""
    measuring = Measuring(lambda feeds: time.sleep(0.3), TEXTS, {"tokens": np.array([[5, 6, 7]])}, 4, LENGTHS)
    measuring.run(0.2)
    assert not measuring.done
    assert measuring.seconds[1, 8] >= 0.3


def test_one_disturbed_batch_does_not_end_a_size() -> None:
    cells = cells_of(16, lambda rows, size: 0.001 * (3 if rows == 2 else 1), sizes=(8,))
    assert [rows for rows, _ in cells] == [1, 2, 4, 8, 16]


def test_every_cell_is_run_again_in_turns_and_the_least_counts() -> None:
    """A second in which something else ran hits some runs of each cell, and not all of one."""
    order: list[int] = []
    measuring = Measuring(
        lambda feeds: order.append(len(feeds["image"])), IMAGES, {"image": np.ones((1, 3, 4, 4), np.float32)}, 2, (1,)
    )
    measuring.run(60)
    assert measuring.done
    assert order[-2 * ROUNDS :] == [1, 2] * ROUNDS


def test_a_long_run_is_tried_where_batches_save_much() -> None:
    """Large weights on a device: a run takes the same time whatever its rows."""
    assert [rows for rows, _ in cells_of(64, lambda rows, size: 0.06, sizes=(8,))] == [1, 2, 4, 8, 16, 32, 64]
    assert [rows for rows, _ in cells_of(64, lambda rows, size: 0.06 * rows, sizes=(8,))] == [1, 2]
    assert [rows for rows, _ in cells_of(64, lambda rows, size: 0.6, sizes=(8,))] == [1]
