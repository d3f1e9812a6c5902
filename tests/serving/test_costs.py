"""What a run costs: as measured, in between, beyond, and as runs show later."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ortmesh.serving.batcher.costs import DISTURBED, LONGEST_BETWEEN, Costs, Grid

ROWS, SIZES = (1, 2, 4, 8), (8, 32, 128)


def grid(seconds: float = 0.001, speed: float = 1.0) -> Grid:
    return Grid(ROWS, SIZES, {(b, s): speed * (seconds + 1e-5 * b * s) for b in ROWS for s in SIZES})


@pytest.mark.parametrize(("rows", "size"), [(1, 8), (8, 128), (3, 20), (6, 100), (2, 64)])
def test_what_was_not_measured_lies_in_between(rows: int, size: int) -> None:
    assert Costs(grid()).seconds(rows, size) == pytest.approx(0.001 + 1e-5 * rows * size, rel=1e-6)


def test_sizes_beyond_the_grid_go_on_in_a_straight_line() -> None:
    assert Costs(grid(), max_size=256).seconds(8, 256) == pytest.approx(0.001 + 1e-5 * 8 * 256, rel=1e-6)


def test_rows_beyond_the_table_cost_in_proportion() -> None:
    costs = Costs(grid())
    assert costs.seconds(16, 128) == pytest.approx(2 * costs.seconds(8, 128))


def test_a_grid_with_holes_is_filled() -> None:
    """Two batches of two sizes: enough to begin with."""
    cells = {(b, s): 0.001 + 1e-5 * b * s for b in (1, 2) for s in (8, 128)}
    costs = Costs(Grid(ROWS, SIZES, cells))
    assert costs.seconds(8, 32) == pytest.approx(0.001 + 1e-5 * 8 * 32, rel=0.01)


def test_a_disturbed_measurement_is_cut() -> None:
    cells = dict(grid().seconds) | {(4, 32): 10.0}
    assert Costs(Grid(ROWS, SIZES, cells)).seconds(4, 32) <= DISTURBED * 2 * Costs(grid()).seconds(2, 32) + 1e-9


@given(st.dictionaries(st.tuples(st.sampled_from(ROWS), st.sampled_from(SIZES)), st.floats(1e-6, 10), min_size=1))
def test_more_rows_never_cost_less(cells: dict[tuple[int, int], float]) -> None:
    costs = Costs(Grid(ROWS, SIZES, cells | {(1, 8): 0.001}))
    table = costs.table(np.array(SIZES, float))
    assert (np.diff(table, axis=1) >= 0).all()
    assert (table > 0).all()
    assert (costs.prices(np.array(SIZES, float)) <= table[:, 0] + 1e-12).all()


def test_the_best_batch_is_the_one_in_which_a_row_costs_least() -> None:
    """A device that is full with four rows."""
    cells = {(1, 1): 1.0, (2, 1): 1.1, (4, 1): 1.2, (8, 1): 4.0}
    assert Costs(Grid(ROWS, (1,), cells)).best_rows(1) == 4


def test_a_device_that_slows_down_is_learnt() -> None:
    costs = Costs(grid())
    for _ in range(200):
        costs.learn(8, 128, 2 * (0.001 + 1e-5 * 8 * 128))
    assert costs.seconds(8, 128) == pytest.approx(2 * (0.001 + 1e-5 * 8 * 128), rel=0.1)
    assert costs.seconds(1, 8) > 1.15 * (0.001 + 1e-5 * 8), "the whole device is slower"


def test_one_bad_run_changes_little() -> None:
    costs = Costs(grid())
    before = costs.seconds(8, 128)
    costs.learn(8, 128, 1000 * before)
    assert costs.seconds(8, 128) < 1.3 * before


def test_what_was_learnt_is_where_the_next_start_begins() -> None:
    costs = Costs(grid())
    for _ in range(40):
        for (rows, size), seconds in grid().seconds.items():
            costs.learn(rows, size, 3 * seconds)
    again = Costs(Grid.from_json(costs.learnt().to_json()))
    for rows, size in grid().seconds:
        assert again.seconds(rows, size) == pytest.approx(costs.seconds(rows, size), rel=0.05)


@pytest.mark.parametrize(
    "written",
    [
        {},
        {"rows": [1], "sizes": [1], "seconds": []},
        {"rows": [1], "sizes": [1], "seconds": [[1, 1, -1.0]]},
        {"rows": [1], "sizes": [1], "seconds": [[1, 1, math.inf]]},
        {"rows": [2, 1], "sizes": [1], "seconds": [[1, 1, 1.0]]},
        {"rows": [1], "sizes": [1], "seconds": [[1, 1]]},
    ],
)
def test_a_file_that_holds_something_else_is_refused(written: dict[str, object]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        Grid.from_json(written)


def test_a_cell_that_took_longer_than_a_larger_one_was_disturbed() -> None:
    """A smaller batch, or shorter items, could be padded to it."""
    cells = {(b, s): 0.001 + 1e-5 * b * s for b in ROWS for s in SIZES}
    disturbed = Costs(Grid(ROWS, SIZES, cells | {(4, 8): 0.1}))
    assert disturbed.seconds(4, 8) <= min(cells[8, 8], cells[4, 32]) + 1e-9


def test_what_passes_between_runs_makes_larger_batches_cheaper() -> None:
    """Two rows take twice as long as one: without what passes between, one at a time is as good."""
    costs = Costs(Grid((1, 2, 4, 8), (1,), {(rows, 1): 0.02 * rows for rows in (1, 2, 4, 8)}))
    assert (costs.best_rows(1), costs.price(1)) == (1, pytest.approx(0.02))
    for _ in range(200):
        costs.passed(0.002)
        costs.learn(1, 1, 0.02)
    assert costs.best_rows(1) == 4, "8 would save less than 2 % more"
    assert costs.seconds(1, 1) == pytest.approx(0.02), "of the run itself"
    assert costs.table(np.array([1.0]))[0, :2] == pytest.approx([0.022, 0.042], rel=1e-3)
    assert costs.price(1) == pytest.approx((8 * 0.02 + 0.002) / 8, rel=1e-3)


def test_a_long_pause_is_not_what_a_run_costs() -> None:
    costs = Costs(grid())
    for _ in range(200):
        costs.passed(3.0)
    assert costs.between <= LONGEST_BETWEEN
