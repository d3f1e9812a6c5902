"""From the finder's map to the corners of lines, on maps that were drawn."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ortmesh_vision.ocr_boxes import Corners, Map, find_lines
from ortmesh_vision.settings import LineFinder

FINDER = LineFinder(mean=(0, 0, 0), std=(1, 1, 1), recognizer="r", orienter="o", dilation=1, unclip_ratio=0)
"""Boxes of the cores' own size."""
SIZE = np.array([640, 480], np.float32)


def drawn(*bars: tuple[float, float, float, float, float], probability: float = 0.9) -> Map:
    """A map [480, 640] with bars of (centre x, centre y, length, thickness, degrees)."""
    text = np.zeros((480, 640), np.float32)
    for x, y, length, thickness, degrees in bars:
        corners = cv2.boxPoints(((x, y), (length, thickness), degrees))
        cv2.fillPoly(text, [np.round(corners).astype(np.int32)], probability)
    return text


def lines_of(*bars: tuple[float, float, float, float, float], finder: LineFinder = FINDER) -> list[Corners]:
    return find_lines(drawn(*bars), SIZE, finder)


def degrees_of(line: Corners) -> float:
    """In which direction its text runs, clockwise from level."""
    x, y = (line[1] - line[0]).tolist()
    return math.degrees(math.atan2(y, x))


def length_of(line: Corners) -> float:
    return float(np.linalg.norm(line[1] - line[0]))


def test_an_empty_page_has_no_lines() -> None:
    assert lines_of() == []
    assert find_lines(drawn((300, 200, 200, 20, 0), probability=0.2), SIZE, FINDER) == []


def test_a_level_line_starts_at_its_top_left() -> None:
    (line,) = lines_of((300, 200, 200, 20, 0))
    assert line == pytest.approx(np.array([[200, 190], [400, 190], [400, 210], [200, 210]]), abs=2)


@given(st.floats(-44, 44), st.floats(60, 300), st.floats(8, 18))
def test_a_slanting_line_runs_to_the_right(degrees: float, length: float, thickness: float) -> None:
    (line,) = lines_of((320, 240, length, thickness, degrees))
    assert degrees_of(line) == pytest.approx(degrees, abs=4)
    assert length_of(line) == pytest.approx(length, abs=4)
    assert np.linalg.norm(line[3] - line[0]) == pytest.approx(thickness, abs=4)
    assert line.mean(axis=0) == pytest.approx([320, 240], abs=2)
    assert np.linalg.det([line[1] - line[0], line[2] - line[1]]) > 0  # clockwise, as y grows downwards


def test_a_steep_line_runs_down() -> None:
    (line,) = lines_of((320, 240, 200, 16, 90))
    assert degrees_of(line) == pytest.approx(90, abs=1)
    assert length_of(line) == pytest.approx(200, abs=3)


def test_corners_are_in_the_page_that_was_given() -> None:
    (line,) = find_lines(drawn((300, 200, 200, 20, 0)), np.array([1280, 1440], np.float32), FINDER)
    assert line == pytest.approx(np.array([[400, 570], [800, 570], [800, 630], [400, 630]]), abs=6)


def test_boxes_grow_from_the_core_to_the_letters() -> None:
    """By area / perimeter times the ratio on every side."""
    (core,) = lines_of((300, 200, 200, 20, 0))
    (grown,) = lines_of((300, 200, 200, 20, 0), finder=FINDER.model_copy(update={"unclip_ratio": 1.6}))
    growth = 1.6 * 200 * 20 / 440
    assert length_of(grown) - length_of(core) == pytest.approx(2 * growth, abs=1)


def test_an_upright_digit_among_lines_stays_upright() -> None:
    """A lone `1` is three times higher than wide, as is a short word on its side."""
    lines = lines_of((200, 100, 220, 20, 0), (200, 150, 180, 20, 0), (500, 100, 8, 20, 0))
    assert degrees_of(lines[-1]) == pytest.approx(0, abs=1)
    assert length_of(lines[-1]) == pytest.approx(8, abs=3)


def test_a_short_word_on_a_page_on_its_side_lies_on_its_side() -> None:
    lines = lines_of((100, 220, 300, 20, 90), (150, 220, 260, 20, 90), (200, 220, 24, 20, 90))
    assert [degrees_of(line) for line in lines] == pytest.approx([90] * 3, abs=1)


def test_a_long_line_goes_its_own_way() -> None:
    """The label along a chart's axis."""
    lines = lines_of((320, 100, 400, 20, 0), (320, 150, 380, 20, 0), (40, 300, 120, 16, 90))
    assert degrees_of(lines[-1]) == pytest.approx(90, abs=1)


def test_a_word_alone_is_level() -> None:
    (line,) = lines_of((320, 240, 10, 24, 0))
    assert degrees_of(line) == pytest.approx(0, abs=1)


def test_a_letter_that_leans_follows_its_page() -> None:
    """The smallest rectangle around a `7` is askew."""
    lines = lines_of((200, 100, 220, 20, 0), (500, 100, 26, 18, 15))
    assert degrees_of(lines[-1]) == pytest.approx(0, abs=1)


def test_specks_and_unsure_boxes_are_none() -> None:
    hollow = drawn((320, 240, 200, 60, 0))
    hollow[215:265, 230:410] = 0
    assert lines_of((50, 50, 100, 1, 0)) == []
    assert find_lines(hollow, SIZE, FINDER) == []


def test_the_largest_boxes_are_kept_when_there_are_too_many() -> None:
    finder = FINDER.model_copy(update={"max_boxes": 2})
    bars = [(320.0, 40.0 * number, 40.0 * number, 12.0, 0.0) for number in range(1, 6)]
    assert [length_of(line) for line in lines_of(*bars, finder=finder)] == pytest.approx([200, 160], abs=3)
