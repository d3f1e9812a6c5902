"""VisionService.Classify: what a picture shows, as labels with scores. Stage: task."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from ortmesh.common.v1 import common_pb2
from ortmesh.front.call import Call
from ortmesh.serving.models import Models
from ortmesh.serving.needs import Needs
from ortmesh.serving.types import Array
from ortmesh.vision.v1 import vision_pb2
from ortmesh_vision.bounds import results_of
from ortmesh_vision.centre import prepare
from ortmesh_vision.decoder import Decoder
from ortmesh_vision.settings import Centre

DEFAULT_RESULTS = 5
NEEDS = Needs(Centre, inputs={"image": "FP32"}, outputs={"logits": 2})


class Classify:
    """The task."""

    def __init__(self, models: Models, decoder: Decoder) -> None:
        self.models = models
        self.decoder = decoder
        models.require("classify", NEEDS.with_labels)

    async def __call__(self, request: vision_pb2.ClassifyRequest, call: Call) -> vision_pb2.ClassifyResponse:
        """One model call between two pure functions."""
        model = self.models.choose("classify", request.model, call)
        count = results_of(request.max_results, DEFAULT_RESULTS)
        centre, labels = await call.in_pool(NEEDS.with_labels, model)
        pixels, image = await self.decoder.prepare(request.image, "image", partial(prepare, centre=centre), call)
        outputs = await model({"image": pixels}, call, outputs=NEEDS.outputs)
        return vision_pb2.ClassifyResponse(
            model=common_pb2.ModelVersion(name=model.name, version=model.version),
            labels=best(outputs["logits"][0], labels, count),
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
