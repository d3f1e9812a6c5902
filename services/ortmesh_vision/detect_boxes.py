"""From a detector's maps to boxes: each thing is a peak of a map, as in CenterNet (arXiv:1904.07850). Stage: task."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from ortmesh.serving.types import Array, Tensors
from ortmesh_vision.detect_input import View
from ortmesh_vision.settings import Detector

MAX_PEAKS = 5000
"""The best ones are looked at: a caller who asks for everything gets a peak for every few pixels."""

Numbers = npt.NDArray[np.float32]
Indices = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Things:
    """What was found, best first."""

    scores: Numbers
    """[things]"""
    boxes: Numbers
    """[things, 4]: left, top, right, bottom, in pixels of the model's input."""
    landmarks: Numbers
    """[things, points, 2]: x and y, in the same pixels."""


def find_things(maps: Tensors, view: View, detector: Detector, min_score: float, count: int) -> Things:
    """The best things of a view, at most `count`, no two of which overlap by the detector's bound or more.

    `maps` are `scores` [1, 1, rows, columns]; `sizes` and `offsets` [1, 2, …], down and right; `landmarks`
    [1, points * 2, …], down and right in turns.
    """
    cells = (math.ceil(side / detector.stride) for side in (view.height, view.width))
    scores = maps["scores"][0, 0][tuple(map(slice, cells))]  # without the padding
    rows, columns = peaks(scores, min_score)
    boxes = boxes_at(rows, columns, maps["sizes"][0], maps["offsets"][0], detector.stride)
    kept = distinct(boxes, detector.max_overlap, count)
    rows, columns, boxes = rows[kept], columns[kept], boxes[kept]
    return Things(scores[rows, columns], boxes, landmarks_at(rows, columns, maps["landmarks"][0], boxes))


def peaks(scores: Array, min_score: float) -> tuple[Indices, Indices]:
    """Rows and columns of cells that no neighbour exceeds and that score at least `min_score`, best first."""
    highest = cv2.dilate(scores, np.ones((3, 3), np.uint8))
    rows, columns = np.nonzero((scores >= min_score) & (scores == highest))
    order = np.argsort(-scores[rows, columns], kind="stable")[:MAX_PEAKS]
    return rows[order], columns[order]


def boxes_at(rows: Indices, columns: Indices, sizes: Array, offsets: Array, stride: int) -> Numbers:
    """The boxes [things, 4] around cells: a size is a logarithm, an offset counts from the cell's middle."""
    centres = np.stack([columns, rows], axis=1) + 0.5 + offsets[::-1, rows, columns].T
    halves = np.exp(sizes[::-1, rows, columns].T) / 2
    return (np.concatenate([centres - halves, centres + halves], axis=1) * stride).astype(np.float32)


def landmarks_at(rows: Indices, columns: Indices, landmarks: Array, boxes: Numbers) -> Numbers:
    """The points [things, points, 2] of cells: shares of the box, from its top left corner."""
    points = landmarks.reshape(-1, 2, *landmarks.shape[1:])
    shares = points[:, ::-1, rows, columns].transpose(2, 0, 1)
    corner, size = boxes[:, None, :2], boxes[:, None, 2:] - boxes[:, None, :2]
    return np.asarray(corner + shares * size, np.float32)


def distinct(boxes: Numbers, max_overlap: float, count: int) -> list[int]:
    """Indices of the first `count` boxes none of which overlaps an earlier one of them by `max_overlap` or more."""
    left, kept = np.arange(len(boxes)), list[int]()
    while len(left) and len(kept) < count:
        best, left = int(left[0]), left[1:]
        kept.append(best)
        left = left[overlaps(boxes[best], boxes[left]) < max_overlap]
    return kept


def overlaps(box: Numbers, others: Numbers) -> Numbers:
    """What a box shares with each of the others [boxes, 4], by what they cover together, in [0, 1]."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    shared = np.maximum(sides, 0).prod(axis=1)
    together = (box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(axis=1) - shared
    return np.asarray(shared / np.maximum(together, np.finfo(np.float32).tiny), np.float32)
