"""What NlpService answers: one line binds a task to its method."""

from __future__ import annotations

from typing import Final

from ortmesh.front.methods import Method, bind, generated
from ortmesh.nlp.v1 import nlp_pb2
from ortmesh.serving.models import Models
from ortmesh_nlp.detect_language import DetectLanguage
from ortmesh_nlp.embed import Embed
from ortmesh_nlp.find_entities import FindEntities

FAMILY: Final = "nlp"
SERVICE = "ortmesh.nlp.v1.NlpService"


def methods(models: Models) -> list[Method]:
    """The service's rows of the table of methods."""
    return bind(
        SERVICE,
        {
            "DetectLanguage": DetectLanguage(models),
            "Embed": Embed(models),
            "FindEntities": FindEntities(models),
        },
        messages=generated(nlp_pb2),
    )
