"""A model called by its tensors over the Open Inference Protocol, without a task around it. Stage: tasks.

With tritonclient where it is installed, as callers of other inference servers have it; else with ortmesh's own
messages of the same protocol.
"""

from __future__ import annotations

import importlib.util
import io
import time
from collections.abc import Sequence
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
from PIL import Image

from demo.answers import Came, Tensors
from demo.inputs import Picture
from ortmesh import catalogue, descriptors
from ortmesh.client import channel_options

MODEL = "efficientnet-lite0"
METHOD = "GRPCInferenceService.ModelInfer"
Floats = npt.NDArray[np.float32]


def infer(address: str, picture: Picture, labels: Sequence[str]) -> Tensors:
    """Sends a picture's pixels to the classifier as the tensor that its card describes."""
    image = pixels(picture)
    ask, client = (_with_tritonclient, "tritonclient") if _has_tritonclient() else (_with_ortmesh, "ortmesh's messages")
    began = time.perf_counter()
    outputs, version = ask(address, image)
    came = Came(METHOD, f"{MODEL}@{version}", time.perf_counter() - began)
    best = labels[int(outputs["logits"].argmax())]
    got = tuple(_described(*each) for each in outputs.items())
    return Tensors(picture, client, _described("image", image), got, best, came)


def pixels(picture: Picture) -> Floats:
    """The middle of a picture, f32 [1, 3, 224, 224], prepared as the model's card says."""
    constants = catalogue.card(MODEL).preprocessing
    image = Image.open(io.BytesIO(picture.encoded)).convert("RGB")
    scale = constants["resize"] / min(image.size)
    image = image.resize([round(side * scale) for side in image.size], Image.Resampling.BICUBIC)
    left, top = ((side - constants["crop"]) // 2 for side in image.size)
    image = image.crop((left, top, left + constants["crop"], top + constants["crop"]))
    values = (np.asarray(image, dtype=np.float32) - constants["mean"]) / constants["std"]
    return np.ascontiguousarray(values.transpose(2, 0, 1)[None], dtype=np.float32)


def _has_tritonclient() -> bool:
    return importlib.util.find_spec("tritonclient") is not None


def _with_tritonclient(address: str, image: Floats) -> tuple[dict[str, Floats], str]:
    from tritonclient import grpc as triton

    with triton.InferenceServerClient(address) as client:
        tensor = triton.InferInput("image", list(image.shape), "FP32")
        tensor.set_data_from_numpy(image)
        answer = client.infer(MODEL, [tensor])
    response = answer.get_response()
    return {output.name: answer.as_numpy(output.name) for output in response.outputs}, response.model_version


def _with_ortmesh(address: str, image: Floats) -> tuple[dict[str, Floats], str]:
    request = descriptors.oip("ModelInferRequest")(model_name=MODEL, raw_input_contents=[image.tobytes()])
    request.inputs.add(name="image", datatype="FP32", shape=image.shape)
    with grpc.insecure_channel(address, channel_options()) as channel:
        call: Any = channel.unary_unary(
            f"/{descriptors.OIP_SERVICE}/ModelInfer",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=descriptors.oip("ModelInferResponse").FromString,
        )
        response = call(request, timeout=descriptors.DEFAULT_TIMEOUT_SECONDS)
    outputs = {
        output.name: np.frombuffer(raw, "<f4").reshape(list(output.shape))
        for output, raw in zip(response.outputs, response.raw_output_contents, strict=True)
    }
    return outputs, response.model_version


def _described(name: str, tensor: Floats) -> str:
    return f"{name} FP32 {list(tensor.shape)}"
