"""What VisionService answers: one line binds a task to its method."""

from __future__ import annotations

from typing import Final

import cv2

from ortmesh.front.methods import Method, bind, generated
from ortmesh.serving.models import Models
from ortmesh.vision.v1 import vision_pb2
from ortmesh_vision.classify import Classify
from ortmesh_vision.decoder import Decoder
from ortmesh_vision.detect import Detect
from ortmesh_vision.embed import Embed
from ortmesh_vision.read_text import ReadText

FAMILY: Final = "vision"
SERVICE = "ortmesh.vision.v1.VisionService"


def methods(models: Models) -> list[Method]:
    """The service's rows of the table of methods."""
    cv2.setNumThreads(1)  # pictures are worked on side by side in the pool; OpenCV would take all of the host's cores
    decoder = Decoder()
    return bind(
        SERVICE,
        {
            "Classify": Classify(models, decoder),
            "Detect": Detect(models, decoder),
            "Embed": Embed(models, decoder),
            "ReadText": ReadText(models, decoder),
        },
        messages=generated(vision_pb2),
    )
