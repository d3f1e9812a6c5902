"""A picture as the input of a model that detects. Stage: task."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ortmesh.vision.v1 import vision_pb2
from ortmesh_vision.pictures import Picture, Pixels
from ortmesh_vision.settings import Detector

REDUCING_GAP = 2.0
"""Huge pictures are averaged to twice the size first: 64 megapixels take 0.15 s, half of what they would."""


@dataclass(frozen=True, slots=True)
class View:
    """What the model sees of a picture: all of it, at another size, in the top left corner of its input."""

    width: int
    height: int
    info: vision_pb2.ImageInfo
    """The picture that was sent."""

    @property
    def scale(self) -> tuple[float, float]:
        """Pixels of the picture for each of the view, along x and y."""
        return self.info.width / self.width, self.info.height / self.height


def prepare(picture: Picture, detector: Detector) -> tuple[View, Pixels]:
    """The view and the model's input [1, 3, height, width]."""
    width, height = view_size(*picture.image.size, detector)
    return View(width, height, picture.info()), model_input(picture, width, height, detector.multiple)


def view_size(width: int, height: int, detector: Detector) -> tuple[int, int]:
    """Width and height for the model: large pictures reduced, tiny ones enlarged.

    Photographs of one shape come out at one size, whatever camera they are from, and share batches.
    """
    longer = max(width, height)
    scale = min(max(detector.min_side, longer), detector.max_side) / longer
    return max(1, round(width * scale)), max(1, round(height * scale))


def model_input(picture: Picture, width: int, height: int, multiple: int) -> Pixels:
    """The picture at a size, padded with black at its right and bottom to multiples: planes [1, 3, height, width]."""
    resized = picture.image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=REDUCING_GAP)
    padded = (math.ceil(side / multiple) * multiple for side in (height, width))
    planes = np.zeros((1, 3, *padded), np.uint8)
    planes[0, :, :height, :width] = np.asarray(resized).transpose(2, 0, 1)
    return planes
