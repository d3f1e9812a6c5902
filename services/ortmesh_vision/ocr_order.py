"""The order in which the lines of a page are read, and which of them stand on their heads. Stage: task."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ortmesh_vision.ocr_boxes import Corners

Numbers = npt.NDArray[np.float32]
"""[lines]."""
Flags = npt.NDArray[np.bool_]
"""[lines]."""

SURE_ASPECT = 6.0
"""From this many line heights on the orienter's word on a line alone counts: it takes `Cups` for `sdno`."""
UPRIGHT_PRIOR = 3.0
"""How much lines lean to standing upright, as so many line heights: for pages of one short word."""
MAX_SLOPE = math.tan(math.radians(8))
AGREEING_SLOPE = math.tan(math.radians(1))
MIN_PAIRS = 4


def upside_down(lines: Sequence[Corners], turned: Numbers, threshold: float) -> tuple[Flags, Flags]:
    """Which lines stand on their heads, and of which that is doubtful, from the orienter's probabilities.

    Level and steep lines each decide together, long ones counting for more. Doubtful is a line whose own verdict is
    clear and another one: when it is long, or when there is too little text for a common verdict.
    """
    turns, weak = np.zeros(len(lines), np.bool_), np.zeros(len(lines), np.bool_)
    along = np.array([line[1] - line[0] for line in lines]).reshape(-1, 2)
    down = np.array([line[3] - line[0] for line in lines]).reshape(-1, 2)
    aspects = np.linalg.norm(along, axis=1) / np.maximum(np.linalg.norm(down, axis=1), 1)
    steep = np.abs(along[:, 1]) > np.abs(along[:, 0])
    for group in (steep, ~steep):
        verdict = float(np.sum(aspects[group] * (2 * turned[group] - 1)))
        turns[group] = verdict > UPRIGHT_PRIOR
        weak[group] = abs(verdict) <= UPRIGHT_PRIOR
    clear = np.maximum(turned, 1 - turned) >= threshold
    return turns, clear & ((turned > 0.5) != turns) & (weak | (aspects >= SURE_ASPECT))


def reading_order(lines: Sequence[Corners]) -> list[int]:
    """Indices of the lines, row after row, each row from its start to its end.

    Rows follow the direction in which the page's text runs, so a page that lies on its side is read as if it stood.
    """
    if not lines:
        return []
    corners = np.array(lines)
    along = corners[:, 1] - corners[:, 0]
    # Weighted by length once more: long lines know their angle better.
    direction = (along * np.linalg.norm(along, axis=1, keepdims=True)).sum(axis=0)
    axes = _axes(direction)
    placed = corners @ axes.T
    placed = placed @ _axes(np.array([1, _slope(placed)])).T
    starts, middles = placed[..., 0].min(axis=1), placed[..., 1].mean(axis=1)
    return [index for row in _rows(starts, middles, np.ptp(placed[..., 1], axis=1)) for index in row]


def _axes(direction: Numbers) -> npt.NDArray[np.float32]:
    """Unit vectors along a direction and down from it, [2, 2]."""
    x, y = (direction / max(float(np.linalg.norm(direction)), 1e-6)).tolist()
    return np.array([[x, y], [-y, x]], np.float32)


def _slope(placed: npt.NDArray[np.float32]) -> float:
    """How rows slope against the direction of their lines, [lines, 4, 2], from the nearest line after each line's end.

    The rectangles around short words are up to three degrees off, where a table's columns are far apart; the places of
    its fields are not. 0 unless most of the page agrees.
    """
    centres = placed.mean(axis=1)
    gaps = placed[None, :, :, 0].min(axis=2) - placed[:, None, :, 0].max(axis=2)
    right, down = (centres[None] - centres[:, None]).transpose(2, 0, 1)
    beside = (gaps > 0) & (np.abs(down) < MAX_SLOPE * right)
    nearest = np.where(beside, np.hypot(right, down), np.inf).argmin(axis=1)
    pairs = np.flatnonzero(beside.any(axis=1))
    if len(pairs) < MIN_PAIRS:
        return 0.0
    slopes = down[pairs, nearest[pairs]] / right[pairs, nearest[pairs]]
    middle = float(np.median(slopes))
    return middle if np.mean(np.abs(slopes - middle) < AGREEING_SLOPE) > 0.5 else 0.0


def _rows(starts: Numbers, middles: Numbers, heights: Numbers) -> list[list[int]]:
    """Lines grouped into rows from top to bottom, each row from its start on.

    A line continues the row whose latest line lies beside it: their middles are less than half the lower one's height
    apart. Looking at the latest one alone lets a row slope a little, as on a page that was laid down askew.
    """
    rows: list[list[int]] = []
    ends = np.zeros(0, np.intp)
    for index in np.argsort(starts, kind="stable").tolist():
        apart = np.abs(middles[ends] - middles[index])
        apart[apart >= np.minimum(heights[ends], heights[index]) / 2] = np.inf
        if np.isfinite(apart).any():
            nearest = int(apart.argmin())
            rows[nearest].append(index)
            ends[nearest] = index
        else:
            rows.append([index])
            ends = np.append(ends, index)
    return sorted(rows, key=lambda row: float(middles[row].mean()))
