"""Peaks of a detector's maps become boxes, each thing once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ortmesh.serving.types import Tensors
from ortmesh.vision.v1 import vision_pb2
from ortmesh_vision.detect_boxes import Things, distinct, find_things, overlaps, peaks
from ortmesh_vision.detect_input import View
from ortmesh_vision.settings import Detector

VIEW = View(32, 24, vision_pb2.ImageInfo(width=64, height=48))


def maps(*cells: tuple[int, int, float]) -> Tensors:
    """Maps of a picture of 32 x 32 (24 of them are the view's) with a thing of 16 x 8 in each cell, its points told."""
    made = {
        name: np.zeros((1, channels, 8, 8), np.float32)
        for name, channels in (("scores", 1), ("sizes", 2), ("offsets", 2), ("landmarks", 4))
    }
    made["sizes"] += np.log(np.array([2, 4], np.float32))[None, :, None, None]
    made["offsets"] += np.array([0.25, -0.25], np.float32)[None, :, None, None]
    made["landmarks"] += np.array([0.5, 0.25, 1, 0], np.float32)[None, :, None, None]
    for row, column, score in cells:
        made["scores"][0, 0, row, column] = score
    return made


def found(*cells: tuple[int, int, float], min_score: float = 0.5, count: int = 10) -> Things:
    return find_things(maps(*cells), VIEW, Detector(), min_score, count)


def test_a_cell_becomes_a_box_around_its_middle_and_points_within() -> None:
    things = found((2, 3, 0.75))
    # The middle is (3.5 - 0.25, 2.5 + 0.25) cells of 4 pixels: (13, 11); the box is 16 wide and 8 high.
    np.testing.assert_allclose(things.boxes, [[5, 7, 21, 15]], atol=1e-5)
    np.testing.assert_allclose(things.landmarks, [[[9, 11], [5, 15]]], atol=1e-5)
    assert things.scores.tolist() == [0.75]


def test_things_come_best_first_and_as_many_as_asked_for() -> None:
    cells = ((0, 1, 0.6), (5, 1, 0.9), (5, 7, 0.7))
    assert found(*cells).scores.tolist() == pytest.approx([0.9, 0.7, 0.6])
    assert found(*cells, count=2).scores.tolist() == pytest.approx([0.9, 0.7])
    assert found(*cells, min_score=0.65).scores.tolist() == pytest.approx([0.9, 0.7])


def test_what_scores_the_bound_is_in() -> None:
    assert len(found((2, 3, 0.5), min_score=0.5).scores) == 1


def test_of_boxes_on_top_of_each_other_the_best_is_kept() -> None:
    assert found((2, 3, 0.8), (2, 5, 0.9)).scores.tolist() == pytest.approx([0.9])


def test_padding_holds_nothing() -> None:
    assert len(found((6, 3, 0.9)).scores) == 0


def test_nothing_over_the_bound_is_nothing() -> None:
    things = found()
    assert (things.scores.shape, things.boxes.shape, things.landmarks.shape) == ((0,), (0, 4), (0, 2, 2))


def test_a_cell_beside_a_better_one_is_no_peak() -> None:
    scores = np.array([[0.9, 0.8, 0.1, 0.6]], np.float32)
    rows, columns = peaks(scores, 0.5)
    assert (rows.tolist(), columns.tolist()) == ([0, 0], [0, 3])


def test_overlap_is_what_is_shared_by_what_is_covered() -> None:
    box = np.array([0, 0, 2, 2], np.float32)
    others = np.array([[0, 0, 2, 2], [1, 0, 3, 2], [2, 0, 4, 2], [5, 5, 6, 6], [1, 1, 1, 1]], np.float32)
    np.testing.assert_allclose(overlaps(box, others), [1, 1 / 3, 0, 0, 0])


corner = st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(1, 10), st.integers(1, 10))


@given(st.lists(corner, max_size=30), st.floats(0.1, 0.9))
def test_every_box_is_kept_or_lies_on_a_better_one(corners: list[tuple[int, int, int, int]], bound: float) -> None:
    boxes = np.array([(x, y, x + w, y + h) for x, y, w, h in corners], np.float32).reshape(-1, 4)
    kept = distinct(boxes, bound, 100)
    for index, box in enumerate(boxes):
        better = boxes[[each for each in kept if each < index]]
        assert (index in kept) == bool(np.all(overlaps(box, better) < np.float32(bound)))
