"""VisionService.Embed: pictures as vectors whose cosine tells how alike they are. Stage: task."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from ortmesh.common.v1 import common_pb2
from ortmesh.errors import BadInput
from ortmesh.front.call import Call
from ortmesh.front.status import status_of
from ortmesh.serving.models import Models
from ortmesh.serving.needs import Needs
from ortmesh.serving.vectors import check_encoding, embedding, unit
from ortmesh.vision.v1 import vision_pb2
from ortmesh_vision.centre import prepare
from ortmesh_vision.decoder import Decoder
from ortmesh_vision.settings import Centre

MAX_IMAGES = 32
NEEDS = Needs(Centre, inputs={"image": "FP32"}, outputs={"embedding": 2})

Prepared = npt.NDArray[np.float32] | BadInput


class Embed:
    """The task."""

    def __init__(self, models: Models, decoder: Decoder) -> None:
        self.models = models
        self.decoder = decoder
        models.require("embed", NEEDS.of)

    async def __call__(self, request: vision_pb2.EmbedRequest, call: Call) -> vision_pb2.EmbedResponse:
        """Every readable picture is an item of its own in the model's batcher."""
        check(request)
        model = self.models.choose("embed", request.model, call)
        prepared = await prepare_all(request.images, NEEDS.of(model), self.decoder, call)
        readable = [pixels for pixels in prepared if not isinstance(pixels, BadInput)]
        outputs = await model.many([{"image": pixels} for pixels in readable], call, outputs=NEEDS.outputs)
        vectors = iter([each["embedding"][0] for each in outputs])
        return vision_pb2.EmbedResponse(
            model=common_pb2.ModelVersion(name=model.name, version=model.version),
            results=[
                vision_pb2.EmbedResult(error=status_of(each))
                if isinstance(each, BadInput)
                else vision_pb2.EmbedResult(embedding=embedding(unit(next(vectors)), request.encoding, True))
                for each in prepared
            ],
        )


def check(request: vision_pb2.EmbedRequest) -> None:
    """BadInput for a number of pictures or an encoding that is not allowed."""
    if not 1 <= len(request.images) <= MAX_IMAGES:
        raise BadInput("images", f"{len(request.images)} pictures; 1 to {MAX_IMAGES} are allowed")
    check_encoding(request.encoding)


async def prepare_all(
    images: Sequence[vision_pb2.Image], centre: Centre, decoder: Decoder, call: Call
) -> list[Prepared]:
    """The inputs of all pictures, side by side in the pool, an error in the place of one that can't be read.

    A single picture that can't be read fails the call: its error is raised.
    """
    prepared = partial(prepare, centre=centre)
    if len(images) == 1:
        return [(await decoder.prepare(images[0], "images[0]", prepared, call))[0]]

    async def one(image: vision_pb2.Image, field: str) -> Prepared:
        try:
            return (await decoder.prepare(image, field, prepared, call))[0]
        except BadInput as error:
            return error

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(image, f"images[{index}]")) for index, image in enumerate(images)]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None  # the call's own end (overloaded, expired): one of them tells it
    return [task.result() for task in tasks]
