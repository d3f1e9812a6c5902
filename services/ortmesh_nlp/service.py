"""What NlpService answers: one line binds a task to its method."""

from __future__ import annotations

from typing import Final

from ortmesh.front.methods import Method, bind, generated
from ortmesh.nlp.v1 import nlp_pb2
from ortmesh.serving.models import Models
from ortmesh_nlp.count_tokens import CountTokens
from ortmesh_nlp.detect_language import DetectLanguage
from ortmesh_nlp.embed import Embed
from ortmesh_nlp.find_entities import FindEntities
from ortmesh_nlp.generate import Generate

FAMILY: Final = "nlp"
SERVICE = "ortmesh.nlp.v1.NlpService"


def methods(models: Models) -> list[Method]:
    """The service's rows of the table of methods."""
    embed = Embed(models)
    return bind(
        SERVICE,
        {
            "CountTokens": CountTokens(models),
            "DetectLanguage": DetectLanguage(models),
            "Embed": embed,
            "FindEntities": FindEntities(models),
            "Generate": Generate(models),
        },
        direct={"Embed": embed.direct},
        messages=generated(nlp_pb2),
    )
