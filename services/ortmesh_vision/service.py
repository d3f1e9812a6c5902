"""VisionService: which task answers which method."""

from __future__ import annotations

from typing import Final

from ortmesh.front.methods import Method, bind, generated
from ortmesh.serving.models import Models
from ortmesh.vision.v1 import vision_pb2
from ortmesh_vision.classify import Classify
from ortmesh_vision.embed import Embed
from ortmesh_vision.read_text import ReadText

FAMILY: Final = "vision"
SERVICE = "ortmesh.vision.v1.VisionService"


def methods(models: Models) -> list[Method]:
    """The family's rows in the front's table."""
    return bind(
        SERVICE,
        {
            "Classify": Classify(models),
            "Embed": Embed(models),
            "ReadText": ReadText(models),
        },
        messages=generated(vision_pb2),
    )
