"""VisionService.Classify: what a picture shows, as labels with scores. Stage: task."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ortmesh.common.v1 import common_pb2
from ortmesh.front.call import Call
from ortmesh.serving.models import Models
from ortmesh.serving.types import Array
from ortmesh.vision.v1 import vision_pb2
from ortmesh_vision.bounds import results_of
from ortmesh_vision.centre import prepare
from ortmesh_vision.settings import Centre, settings

DEFAULT_RESULTS = 5


class Classify:
    """The task."""

    def __init__(self, models: Models) -> None:
        self.models = models

    async def __call__(self, request: vision_pb2.ClassifyRequest, call: Call) -> vision_pb2.ClassifyResponse:
        """One model call between two pure functions."""
        model = self.models.choose("classify", request.model, call)
        count = results_of(request.max_results, DEFAULT_RESULTS)
        pixels, image = await call.in_pool(prepare, request.image, "image", settings(model.card, Centre))
        outputs = await model({"image": pixels}, call)
        return vision_pb2.ClassifyResponse(
            model=common_pb2.ModelVersion(name=model.name, version=model.version),
            labels=best(outputs["logits"][0], model.labels, count),
            image=image,
        )


def best(logits: Array, labels: Sequence[str], count: int) -> list[vision_pb2.Label]:
    """The best labels of logits [classes], with their softmax over all classes; equal ones by index.

    A class that the card names no label for is named by its number.
    """
    exponents = np.exp(logits.astype(np.float64) - logits.max())
    scores = exponents / exponents.sum()
    return [
        vision_pb2.Label(name=labels[index] if index < len(labels) else str(index), score=scores[index], index=index)
        for index in np.argsort(-scores, kind="stable")[:count].tolist()
    ]
