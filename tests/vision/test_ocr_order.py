"""In which order lines are read, and which stand on their heads."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ortmesh_vision.ocr_boxes import Corners
from ortmesh_vision.ocr_order import reading_order, upside_down


def line(x: float, y: float, length: float = 100, height: float = 20) -> Corners:
    """A level line from its top left."""
    return np.array([[x, y], [x + length, y], [x + length, y + height], [x, y + height]], np.float32)


def turned(lines: Sequence[Corners], degrees: float) -> list[Corners]:
    """The page turned around its top left."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return [each @ np.array([[cos, sin], [-sin, cos]], np.float32) for each in lines]


TABLE = [line(x, y, length) for y in (0, 40, 80, 120) for x, length in ((0, 60), (220, 12), (440, 50), (660, 90))]
"""Four rows of four fields, in reading order."""


def test_nothing_has_no_order() -> None:
    assert reading_order([]) == []


def test_lines_go_from_top_to_bottom() -> None:
    assert reading_order([line(0, 60), line(300, 0), line(10, 30)]) == [1, 2, 0]


def test_fields_of_a_row_go_from_left_to_right() -> None:
    """A few pixels up or down do not part them."""
    assert reading_order([line(300, 2), line(0, 5), line(150, 0), line(0, 40)]) == [1, 2, 0, 3]


def test_small_lines_beside_a_large_one_are_rows_of_their_own() -> None:
    logo, name, street = line(0, 0, 80, 60), line(120, 0, 100, 18), line(120, 42, 100, 18)
    assert reading_order([street, logo, name]) == [2, 1, 0]


@given(st.randoms(), st.floats(-180, 180))
def test_a_page_is_read_as_if_it_stood(random: np.random.Generator, degrees: float) -> None:
    """Whatever way it lies and in whatever order its lines were found."""
    order = list(range(len(TABLE)))
    random.shuffle(order)
    lines = turned(TABLE, degrees)
    assert [order[index] for index in reading_order([lines[index] for index in order])] == list(range(len(TABLE)))


@pytest.mark.parametrize("degrees", [-5, -2, 2, 5])
def test_rows_of_a_page_askew_hold_together(degrees: float) -> None:
    """The rectangles around short words say level where the page slopes."""
    slope = math.tan(math.radians(degrees))
    sloping = [each + np.array([0, each[0, 0] * slope], np.float32) for each in TABLE]
    assert reading_order(sloping) == list(range(len(TABLE)))


def test_lines_that_do_not_agree_on_a_slope_are_taken_as_they_lie() -> None:
    """Notes in a margin, each a little higher or lower than the paragraph beside it."""
    places = [(0, 0), (300, 20), (0, 60), (300, 50), (0, 120), (300, 140), (0, 180), (300, 165)]
    assert reading_order([line(x, y) for x, y in places]) == [0, 1, 3, 2, 4, 5, 7, 6]


# Standing on their heads


def verdicts(lines: Sequence[Corners], *probabilities: float) -> tuple[list[bool], list[bool]]:
    turns, doubtful = upside_down(lines, np.array(probabilities, np.float32), 0.9)
    return turns.tolist(), doubtful.tolist()


def test_no_lines_need_no_verdict() -> None:
    assert verdicts([]) == ([], [])


def test_a_short_line_follows_its_page() -> None:
    """Upside down, `Cups` looks like `sdno`."""
    page = [line(0, 0, 400), line(0, 30, 300), line(0, 60, 50)]
    assert verdicts(page, 0.01, 0.02, 0.95) == ([False] * 3, [False] * 3)
    assert verdicts(page, 0.99, 0.97, 0.05) == ([True] * 3, [False] * 3)


def test_a_long_line_against_its_page_is_read_both_ways() -> None:
    page = [line(0, 0, 400), line(0, 30, 300), line(0, 60, 300)]
    assert verdicts(page, 0.01, 0.02, 0.95) == ([False] * 3, [False, False, True])
    assert verdicts(page, 0.01, 0.02, 0.7)[1] == [False] * 3


def test_a_word_alone_is_taken_to_stand_but_read_both_ways() -> None:
    assert verdicts([line(0, 0, 50)], 0.97) == ([False], [True])
    assert verdicts([line(0, 0, 50)], 0.03) == ([False], [False])


def test_steep_lines_decide_for_themselves() -> None:
    """A page with a label along its side."""
    down = turned([line(0, 0, 300)], 90)[0]
    assert verdicts([line(0, 0, 400), down], 0.01, 0.99) == ([False, True], [False, False])


@pytest.mark.parametrize("count", [1, 5])
def test_undecided_lines_stand(count: int) -> None:
    assert verdicts([line(0, 30 * number, 300) for number in range(count)], *[0.5] * count)[0] == [False] * count
