"""The order in which the lines of a page are read, and which of them stand on their heads. Stage: task."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ortmesh_vision.ocr_boxes import Corners

Numbers = npt.NDArray[np.float32]
"""[lines]."""

SURE_ASPECT = 6.0
"""From this many line heights on the orienter is right about a line alone; it takes `Cups` for `sdno`."""
UPRIGHT_PRIOR = 3.0
"""How much lines lean to standing upright, as so many line heights: for pages of one short word."""


def upside_down(lines: Sequence[Corners], turned: Numbers, threshold: float) -> npt.NDArray[np.bool_]:
    """Which lines stand on their heads, [lines], from the orienter's probabilities.

    Level and steep lines each decide together, long ones counting for more. A line stands against the others only when
    it is long and the orienter is sure of it.
    """
    if not lines:
        return np.zeros(0, np.bool_)
    along = np.array([line[1] - line[0] for line in lines])
    aspects = np.linalg.norm(along, axis=1) / np.array([max(np.linalg.norm(line[3] - line[0]), 1.0) for line in lines])
    steep = np.abs(along[:, 1]) > np.abs(along[:, 0])
    result = np.zeros(len(lines), np.bool_)
    for group in (steep, ~steep):
        result[group] = np.sum(aspects[group] * (2 * turned[group] - 1)) > UPRIGHT_PRIOR
    sure = (aspects >= SURE_ASPECT) & (np.maximum(turned, 1 - turned) >= threshold)
    return np.where(sure, turned > 0.5, result)


def reading_order(lines: Sequence[Corners]) -> list[int]:
    """Indices of the lines, row after row, each row from its start to its end.

    Rows follow the direction in which the page's text runs, so a page that lies on its side is read as if it stood.
    """
    if not lines:
        return []
    corners = np.array(lines)
    along = corners[:, 1] - corners[:, 0]
    # Weighted by length once more: the rectangles around short words are a few degrees off.
    direction = (along * np.linalg.norm(along, axis=1, keepdims=True)).sum(axis=0)
    direction = direction / max(float(np.linalg.norm(direction)), 1e-6)
    across = corners @ np.array([-direction[1], direction[0]], np.float32)
    starts = (corners @ direction).min(axis=1)
    return [index for row in _rows(starts, across.mean(axis=1), np.ptp(across, axis=1)) for index in row]


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
