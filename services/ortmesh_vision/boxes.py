"""Boxes as answers say them: cut at the picture's edges, in pixels and in shares of its sides. Stage: task."""

from __future__ import annotations

from collections.abc import Sequence

from ortmesh.common.v1 import common_pb2
from ortmesh.vision.v1 import vision_pb2


def box_of(edges: Sequence[float], info: vision_pb2.ImageInfo) -> common_pb2.Box:
    """The box of left, top, right and bottom in pixels of a picture."""
    sides = (info.width, info.height) * 2
    left, top, right, bottom = (min(max(edge, 0.0), side) for edge, side in zip(edges, sides, strict=True))
    return common_pb2.Box(
        x_min=left,
        y_min=top,
        x_max=right,
        y_max=bottom,
        normalized_x_min=left / info.width,
        normalized_y_min=top / info.height,
        normalized_x_max=right / info.width,
        normalized_y_max=bottom / info.height,
    )
