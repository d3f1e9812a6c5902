"""VisionService.Detect: things in a picture and where they are. Stage: task."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from ortmesh.common.v1 import common_pb2
from ortmesh.front.call import Call
from ortmesh.serving.models import Models
from ortmesh.serving.needs import Needs
from ortmesh.serving.types import Tensors
from ortmesh.vision.v1 import vision_pb2
from ortmesh_vision.bounds import min_score_of, results_of
from ortmesh_vision.boxes import box_of
from ortmesh_vision.decoder import Decoder
from ortmesh_vision.detect_boxes import find_things
from ortmesh_vision.detect_input import View, prepare
from ortmesh_vision.settings import Detector

DEFAULT_RESULTS = 100
NEEDS = Needs(
    Detector,
    inputs={"image": "UINT8"},
    outputs={"scores": 4, "sizes": 4, "offsets": 4, "landmarks": 4},
)


class Detect:
    """The task."""

    def __init__(self, models: Models, decoder: Decoder) -> None:
        self.models = models
        self.decoder = decoder
        models.require("detect", NEEDS.with_labels)

    async def __call__(self, request: vision_pb2.DetectRequest, call: Call) -> vision_pb2.DetectResponse:
        """One model call between two pure functions."""
        model = self.models.choose("detect", request.model, call)
        count = results_of(request.max_results, DEFAULT_RESULTS)
        detector, labels = await call.in_pool(NEEDS.with_labels, model)
        min_score = min_score_of(request.min_score, detector.min_score)
        view, pixels = await self.decoder.prepare(request.image, "image", partial(prepare, detector=detector), call)
        maps = await model({"image": pixels}, call, outputs=NEEDS.outputs)
        return vision_pb2.DetectResponse(
            model=common_pb2.ModelVersion(name=model.name, version=model.version),
            detections=await call.in_pool(finish, maps, view, detector, labels, min_score, count),
            image=view.info,
        )


def finish(
    maps: Tensors, view: View, detector: Detector, labels: Sequence[str], min_score: float, count: int
) -> list[vision_pb2.Detection]:
    """The best detections in pixels of the picture that was sent; the detector knows one kind of thing."""
    things = find_things(maps, view, detector, min_score, count)
    x, y = view.scale
    return [
        vision_pb2.Detection(
            name=labels[0] if labels else "0",
            score=score,
            box=box_of((left * x, top * y, right * x, bottom * y), view.info),
            landmarks=[common_pb2.Point(x=across * x, y=down * y) for across, down in points],
        )
        for score, (left, top, right, bottom), points in zip(
            things.scores.tolist(), things.boxes.tolist(), things.landmarks.tolist(), strict=True
        )
    ]
