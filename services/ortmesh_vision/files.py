"""A picture that came as a file: its header first, its pixels when they are wanted. Stage: task.

Pillow's decoders release the interpreter lock.
"""

from __future__ import annotations

import io

from PIL import ExifTags, Image, UnidentifiedImageError

from ortmesh.errors import BadInput
from ortmesh_vision.anatomy import check_parts, is_small_exif
from ortmesh_vision.colours import to_rgb
from ortmesh_vision.frames import count_frames
from ortmesh_vision.sizes import OVER, check_size

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP")
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


class File:
    """A file whose header was read."""

    def __init__(self, data: bytes, field: str) -> None:
        """BadInput when it is no picture, one of no known kind, or larger than is allowed."""
        if not data:
            raise BadInput(field, "is empty")
        check_parts(data, field)
        self._data, self._field = data, field
        self._image = _open(data, field)
        self.pixels = self._image.width * self._image.height
        check_size(self._image.width, self._image.height, field)

    def decode(self) -> tuple[Image.Image, int]:
        """The first frame, upright RGB, and how many there are. BadInput for what a decoder can't read."""
        frames = count_frames(self._image, self._data)
        try:
            self._image.load()
            orientation = _orientation(self._image)
            upright = self._image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else self._image
            return to_rgb(upright, self._field), frames
        except (BadInput, MemoryError):
            raise
        except Exception as error:  # decoders raise whatever comes to them: it is always about these bytes
            raise BadInput(self._field, f"the {self._image.format} file is broken or truncated: {error}") from None


def _open(data: bytes, field: str) -> Image.Image:
    """Reads the header only."""
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadInput(field, f"the picture is {OVER}") from None
    except UnidentifiedImageError:
        raise BadInput(field, f"is not a picture that can be read ({', '.join(FORMATS)})") from None
    except MemoryError:
        raise
    except Exception as error:
        raise BadInput(field, f"the file is broken or truncated: {error}") from None


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation; 1 (upright) when the metadata can't be read: it is no reason to refuse the picture."""
    exif = image.info.get("exif")
    if isinstance(exif, bytes) and not is_small_exif(exif):
        return 1
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:
        return 1
