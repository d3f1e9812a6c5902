"""A page for ReadText: the input of the model that finds lines, and the pixels that lines are cut from. Stage: task."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from ortmesh.vision.v1 import vision_pb2
from ortmesh_vision.pictures import Picture, Pixels
from ortmesh_vision.settings import LineFinder


@dataclass(frozen=True, slots=True)
class Page:
    """The picture while its lines are found and read."""

    rgb: Pixels
    """[height, width, 3]; smaller than the picture when that is huge."""
    info: vision_pb2.ImageInfo
    """The picture that was sent."""

    @property
    def nbytes(self) -> int:
        """What it holds: the pool counts it."""
        return self.rgb.nbytes

    @property
    def size(self) -> npt.NDArray[np.float32]:
        """Width and height of `rgb`."""
        return np.array(self.rgb.shape[1::-1], np.float32)

    @property
    def scale(self) -> npt.NDArray[np.float32]:
        """Pixels of the picture for each of `rgb`, along x and y."""
        return np.array([self.info.width, self.info.height], np.float32) / self.size


def prepare(picture: Picture, finder: LineFinder) -> tuple[Page, npt.NDArray[np.float32]]:
    """The page and the finder's input [1, 3, height, width]."""
    page = Page(_reduced(picture, 2 * finder.max_side), picture.info())
    return page, finder_input(page.rgb, finder)


def _reduced(picture: Picture, max_side: int) -> Pixels:
    """The pixels, averaged down when a side is over `max_side`.

    A call keeps them while it waits for its turn. A line that the finder sees, at half this scale, has letters of a
    dozen pixels here: enough for the recognizer.
    """
    factor = math.ceil(max(picture.image.size) / max_side)
    return np.asarray(picture.image.reduce(factor)) if factor > 1 else picture.rgb()


def finder_input(rgb: Pixels, finder: LineFinder) -> npt.NDArray[np.float32]:
    """The page as the finder takes it, [1, 3, height, width]."""
    height, width = finder_size(rgb.shape[0], rgb.shape[1], finder)
    resized = resize(rgb, width, height)
    planes = np.empty((1, 3, height, width), np.float32)
    finder.write(resized, planes[0])
    return planes


def finder_size(height: int, width: int, finder: LineFinder) -> tuple[int, int]:
    """Height and width for the finder: small pages enlarged, large ones reduced, both sides rounded."""
    scale = max(1.0, finder.min_side / min(height, width))
    scale = min(scale, finder.max_side / max(height, width))
    step = finder.multiple
    return max(step, round(height * scale / step) * step), max(step, round(width * scale / step) * step)


def resize(rgb: Pixels, width: int, height: int) -> Pixels:
    """Resized; averaged where it shrinks, so that thin strokes stay."""
    shrinks = width * height < rgb.shape[0] * rgb.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(rgb, (width, height), interpolation=method), np.uint8)
