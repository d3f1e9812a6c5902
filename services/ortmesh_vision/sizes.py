"""How large pictures may be. Stage: task."""

from __future__ import annotations

from ortmesh.errors import BadInput

MAX_SIDE = 16_384
MAX_PIXELS = 64_000_000
OVER = f"over {MAX_PIXELS // 1_000_000} megapixels"


def check_size(width: int, height: int, field: str) -> None:
    """BadInput for a picture of more than MAX_SIDE pixels at a side, or MAX_PIXELS in all."""
    if max(width, height) > MAX_SIDE:
        raise BadInput(field, f"the picture is {width} x {height} pixels; a side may have {MAX_SIDE:,} at most")
    if width * height > MAX_PIXELS:
        raise BadInput(field, f"the picture is {width} x {height} pixels, {OVER}")
