"""Pictures as people send them, decoded once for all tasks: upright, 8-bit RGB. Stage: task.

Everything that a caller can get wrong about a picture is found here and named by its field. Pillow's decoders release
the interpreter lock.
"""

from __future__ import annotations

import io
import threading
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError

from ortmesh.errors import BadInput
from ortmesh.vision.v1 import vision_pb2
from ortmesh_vision.anatomy import check_parts, is_small_exif
from ortmesh_vision.frames import count_frames

Pixels = npt.NDArray[np.uint8]

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP")
MAX_SIDE = 16_384
MAX_PIXELS = 64_000_000
LARGE_PIXELS = 16_000_000
"""Larger pictures are decoded one after the other: for a moment one of 64 megapixels takes up to 1.3 GB, as WebP."""
_LARGE = threading.Lock()

WHITE = (255, 255, 255)
TOO_DEEP = ("I", "F")
"""Pillow's modes of 32 bits a channel: what is white in them, nobody knows."""
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns a picture upright, by EXIF's orientation."""
RAW_BYTES = {
    vision_pb2.PIXEL_FORMAT_RGB8: 3,
    vision_pb2.PIXEL_FORMAT_BGR8: 3,
    vision_pb2.PIXEL_FORMAT_RGBA8: 4,
    vision_pb2.PIXEL_FORMAT_GRAY8: 1,
}
"""Bytes a pixel."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture. It stays Pillow's, which resizes it without a copy: an array of 48 megapixels takes 0.6 s."""

    image: Image.Image
    """Mode RGB, upright."""
    frames: int = 1
    """Frames or pages in the file; this is the first."""

    def rgb(self) -> Pixels:
        """The pixels as an array of its own, [height, width, 3]."""
        return np.asarray(self.image)

    def info(self) -> vision_pb2.ImageInfo:
        """What the answer says of the picture."""
        return vision_pb2.ImageInfo(width=self.image.width, height=self.image.height, frames=self.frames)


def read_picture(image: vision_pb2.Image, field: str) -> Picture:
    """Decodes a picture of a request; `field` is its path there, e.g. `images[3]`.

    BadInput that names the field, e.g. `images[3].encoded`, when it is none, too large, truncated or of no known kind.
    """
    content = image.WhichOneof("content")
    if content == "encoded":
        return _decode(image.encoded, f"{field}.encoded")
    if content == "raw":
        return _from_raw(image.raw, f"{field}.raw")
    raise BadInput(field, "a picture is required, encoded or raw")


# Files


def _decode(data: bytes, field: str) -> Picture:
    if not data:
        raise BadInput(field, "is empty")
    check_parts(data, field)
    opened = _open(data, field)
    _check_size(opened.width, opened.height, field)
    frames = count_frames(opened, data)
    try:
        with _LARGE if opened.width * opened.height > LARGE_PIXELS else nullcontext():
            opened.load()
            orientation = _orientation(opened)
            upright = opened.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else opened
            return Picture(_to_rgb(upright, field), frames)
    except (BadInput, MemoryError):
        raise
    except Exception as error:  # decoders raise whatever comes to them: it is always about these bytes
        raise BadInput(field, f"the {opened.format} file is broken or truncated: {error}") from None


def _open(data: bytes, field: str) -> Image.Image:
    """Reads the header only."""
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadInput(field, f"the picture is over {_megapixels()}") from None
    except UnidentifiedImageError:
        raise BadInput(field, f"is not a picture that can be read ({', '.join(FORMATS)})") from None
    except MemoryError:
        raise
    except Exception as error:
        raise BadInput(field, f"the file is broken or truncated: {error}") from None


def _check_size(width: int, height: int, field: str) -> None:
    if max(width, height) > MAX_SIDE:
        raise BadInput(field, f"the picture is {width} x {height} pixels; a side may have {MAX_SIDE:,} at most")
    if width * height > MAX_PIXELS:
        raise BadInput(field, f"the picture is {width} x {height} pixels, over {_megapixels()}")


def _megapixels() -> str:
    return f"{MAX_PIXELS // 1_000_000} megapixels"


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation; 1 (upright) when the metadata can't be read: it is no reason to refuse the picture."""
    exif = image.info.get("exif")
    if isinstance(exif, bytes) and not is_small_exif(exif):
        return 1
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:
        return 1


def _to_rgb(image: Image.Image, field: str) -> Image.Image:
    if image.mode in TOO_DEEP:
        raise BadInput(field, "pictures of 32 bits a channel are not supported")
    if image.mode == "LAB":
        raise BadInput(field, "pictures in the LAB colour space are not supported")
    if image.mode.startswith("I;16"):
        return _from_grey16(image)
    if image.has_transparency_data:
        return _over_white(image if image.mode == "RGBA" else image.convert("RGBA"))
    return image.convert("RGB")


def _from_grey16(image: Image.Image) -> Image.Image:
    """The upper 8 bits, as Pillow keeps of 16-bit colours; the one transparent value becomes white."""
    deep = np.asarray(image)
    grey = (deep >> 8).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[deep == transparent] = 255
    return Image.fromarray(grey).convert("RGB")


def _over_white(rgba: Image.Image) -> Image.Image:
    white = Image.new("RGB", rgba.size, WHITE)
    white.paste(rgba, mask=rgba)
    return white


# Raw pixels


def _from_raw(raw: vision_pb2.RawImage, field: str) -> Picture:
    for name, side in (("width", raw.width), ("height", raw.height)):
        if not 1 <= side <= MAX_SIDE:
            raise BadInput(f"{field}.{name}", f"is {side}; 1 to {MAX_SIDE:,} is allowed")
    _check_size(raw.width, raw.height, field)
    per_pixel = RAW_BYTES.get(raw.format)
    if per_pixel is None:
        raise BadInput(f"{field}.format", "is required: RGB8, BGR8, RGBA8 or GRAY8")
    expected = raw.width * raw.height * per_pixel
    if len(raw.pixels) != expected:
        raise BadInput(f"{field}.pixels", f"has {len(raw.pixels)} bytes; width x height x {per_pixel} are {expected}")
    return Picture(_raw_rgb(raw))


def _raw_rgb(raw: vision_pb2.RawImage) -> Image.Image:
    size = (raw.width, raw.height)
    if raw.format == vision_pb2.PIXEL_FORMAT_RGBA8:
        return _over_white(Image.frombytes("RGBA", size, raw.pixels))
    if raw.format == vision_pb2.PIXEL_FORMAT_GRAY8:
        return Image.frombytes("L", size, raw.pixels).convert("RGB")
    order = "BGR" if raw.format == vision_pb2.PIXEL_FORMAT_BGR8 else "RGB"
    return Image.frombytes("RGB", size, raw.pixels, "raw", order)
