"""The centre of a picture as the input of a classifier. Stage: task."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from ortmesh.vision.v1 import vision_pb2
from ortmesh_vision.pictures import Picture
from ortmesh_vision.settings import Centre

FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def prepare(picture: Picture, centre: Centre) -> tuple[npt.NDArray[np.float32], vision_pb2.ImageInfo]:
    """The input [1, 3, crop, crop] of a picture, and what was read."""
    return centre_of(picture, centre), picture.info()


def centre_of(picture: Picture, centre: Centre) -> npt.NDArray[np.float32]:
    """A square [1, 3, crop, crop] from the centre of the picture, its shorter side resized to `resize`."""
    size = (centre.crop, centre.crop)
    square = picture.image.resize(size, FILTERS[centre.interpolation], box=_box(picture.image.size, centre))
    planes = np.empty((1, 3, *size), np.float32)
    centre.write(np.asarray(square), planes[0])
    return planes


def _box(size: tuple[int, int], centre: Centre) -> tuple[float, float, float, float]:
    """The part of the picture that becomes the square.

    Only this part is resized: what resizing all of it and cutting then gives, without the 322 MB that a picture of
    16,384 x 10 would become.
    """
    scale = centre.resize / min(size)
    spans = []
    for side in size:
        resized = max(round(side * scale), centre.crop)
        start = (resized - centre.crop) // 2
        spans.append((start * side / resized, (start + centre.crop) * side / resized))
    (left, right), (top, bottom) = spans
    return left, top, right, bottom
