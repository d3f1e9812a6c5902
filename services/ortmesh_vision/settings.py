"""The constants of a card's `preprocessing` that the vision tasks read. Stage: task."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from ortmesh.serving.needs import Settings
from ortmesh_vision.pictures import Pixels

Triple = tuple[float, float, float]


class Planes(Settings):
    """How a model wants its pixels: (value - mean) / std of 0 to 255, channel by channel in the given order."""

    channels: Literal["RGB", "BGR"] = "RGB"
    mean: Triple
    std: Triple

    def write(self, rgb: Pixels, out: npt.NDArray[np.float32]) -> None:
        """Writes pixels [height, width, 3] into planes [3, height, width]."""
        for plane, channel in enumerate((0, 1, 2) if self.channels == "RGB" else (2, 1, 0)):
            np.subtract(rgb[:, :, channel], self.mean[plane], out=out[plane], dtype=np.float32)
            out[plane] /= self.std[plane]


class Centre(Planes):
    """For models that look at the centre of a picture: Classify and Embed."""

    resize: int = Field(default=256, ge=1, le=4096)
    """What the shorter side becomes, in pixels."""
    crop: int = Field(default=224, ge=1, le=4096)
    """The side of the square that is cut from the centre then, in pixels."""
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"


class LineFinder(Planes):
    """For a model that finds lines of text: ReadText."""

    recognizer: str
    """The name of the model that reads a line."""
    orienter: str
    """The name of the model that tells whether a line stands on its head."""
    min_side: int = Field(default=736, ge=32)
    """A page whose shorter side is below this is enlarged to it."""
    max_side: int = Field(default=2048, ge=32)
    """A page whose longer side would be over this is reduced to it. Text of 5 points scanned at 300 dpi is read without
    an error still; the graph's memory is 200 bytes a pixel."""
    multiple: int = Field(default=32, ge=1)
    """The graph takes sides that are multiples of this."""
    pixel_threshold: float = Field(default=0.3, gt=0, lt=1)
    """A pixel whose probability is over this belongs to text."""
    box_threshold: float = Field(default=0.5, ge=0, le=1)
    """A box whose mean probability is below this is none."""
    unclip_ratio: float = Field(default=1.6, ge=0)
    """How much a box grows, for each unit of area by perimeter: the graph finds the core of a line."""
    dilation: int = Field(default=2, ge=1)
    """Groups of pixels that are this close are one."""
    max_boxes: int = Field(default=1000, ge=1)
    """The largest boxes are read when there are more."""


class Detector(Settings):
    """For a model that detects: Detect. It takes RGB of 0 to 255."""

    min_side: int = Field(default=256, ge=1)
    """A picture whose longer side is below this is enlarged to it."""
    max_side: int = Field(default=1280, ge=32)
    """A picture whose longer side is over this is reduced to it."""
    multiple: int = Field(default=32, ge=1)
    """Sides are padded to multiples of this. A coarser one lets pictures of more shapes share batches."""
    stride: int = Field(default=4, ge=1)
    """Pixels between two cells of the model's maps."""
    min_score: float = Field(default=0.5, ge=0, le=1)
    """What scores below this is left out, unless the request says otherwise."""
    max_overlap: float = Field(default=0.3, gt=0, le=1)
    """Of two boxes that share more than this of what they cover together, the better one is kept."""


class Orienter(Planes):
    """For a model that tells whether a line stands on its head."""

    height: int = Field(default=48, ge=1)
    width: int = Field(default=192, ge=1)
    pad_value: float = 0
    """Behind a line that is shorter than the width, after normalization."""
    turned_threshold: float = Field(default=0.9, ge=0.5, le=1)
    """The probability from which a long line is believed against the rest of its page."""


class Recognizer(Planes):
    """For a model that reads a line."""

    characters: str = "characters.txt"
    """A file with the text of a class a line; the first is CTC's blank."""
    height: int = Field(default=48, ge=1)
    min_width: int = Field(default=320, ge=1)
    """A narrower line is padded to this: it reads single letters better (38 of 1,464 wrong at 320, 54 at 64)."""
    width_share: float = Field(default=0.8, gt=0, le=1)
    """A line wider than `min_width` is narrowed to this share: of 6,239 characters in seven fonts, small and noisy, 97
    were wrong at 1 and at 0.8 alike, 181 at 0.6, and the time goes with the width."""
    width_multiple: int = Field(default=64, ge=1)
    """Lines are padded to a multiple of this width, so that lines of a width class share a batch unpadded."""
    max_width: int = Field(default=8192, ge=1)
    """A line that would be longer is squeezed to it."""
    pad_value: float = 0
    """Behind a line that is shorter than its class, after normalization."""
