"""The order in which the lines of a page are read, and which of them stand on their heads. Stage: task."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ortmesh_vision.ocr_boxes import Corners

SURE_ASPECT = 6.0
"""From this many line heights on the orienter is right about a line alone; it takes `Cups` for `sdno`."""
UPRIGHT_PRIOR = 3.0
"""How much lines lean to standing upright, as so many line heights: for pages of one short word."""


def upside_down(lines: Sequence[Corners], turned: npt.NDArray[np.float32], threshold: float) -> npt.NDArray[np.bool_]:
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
    Lines share a row when their centres are less than half the lower one's height apart.
    """
    if not lines:
        return []
    corners = np.array(lines)
    along = (corners[:, 1] - corners[:, 0]).sum(axis=0)
    along = along / max(float(np.linalg.norm(along)), 1e-6)
    across = corners @ np.array([-along[1], along[0]])
    middles, heights = across.mean(axis=1), np.ptp(across, axis=1)
    starts = (corners @ along).min(axis=1)
    rows = _rows(middles, heights)
    return [index for row in rows for index in sorted(row, key=lambda each: float(starts[each]))]


def _rows(middles: npt.NDArray[np.float32], heights: npt.NDArray[np.float32]) -> list[list[int]]:
    """Lines grouped by where their middles lie across the text, from top to bottom."""
    rows: list[list[int]] = []
    for index in np.argsort(middles, kind="stable").tolist():
        if rows and _beside(rows[-1], index, middles, heights):
            rows[-1].append(index)
        else:
            rows.append([index])
    return rows


def _beside(row: list[int], index: int, middles: npt.NDArray[np.float32], heights: npt.NDArray[np.float32]) -> bool:
    lower = min(float(heights[row].min()), float(heights[index]))
    return bool(middles[index] - middles[row].mean() < lower / 2)
