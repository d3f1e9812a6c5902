"""The Open Inference Protocol's methods, each bound to its handler. Stage: task.

Any model of the service can be called by its tensors here, without a task around it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import ortmesh
from ortmesh import descriptors
from ortmesh.errors import BadInput, NotFound
from ortmesh.front.call import Call
from ortmesh.front.methods import Method, bind, private
from ortmesh.front.scan import check_infer
from ortmesh.serving.oip_infer import ModelInfer
from ortmesh.serving.oip_message import InferRequest
from ortmesh.serving.oip_stream import ModelStreamInfer
from ortmesh.serving.signature import TensorInfo

if TYPE_CHECKING:
    from ortmesh.serving.models import Models

PLATFORM = "onnxruntime_onnx"
EXTENSIONS: tuple[str, ...] = ()
"""RepositoryIndex alone is not yet the extension `model_repository`, which also loads and unloads."""
STATES = {"LOADING": "LOADING", "READY": "READY", "FAILED": "UNAVAILABLE", "UNLOADING": "UNLOADING"}
"""A model's state in the words of RepositoryIndex."""


def methods(models: Models, *, family: str, accepting: Callable[[], bool] = lambda: True) -> list[Method]:
    """The rows of inference.GRPCInferenceService. `accepting` is False once the service drains."""
    server, directory, infer = Server(models, family, accepting), Directory(models), ModelInfer(models)
    return bind(
        descriptors.OIP_SERVICE,
        {
            "ServerLive": server.live,
            "ServerReady": server.ready,
            "ServerMetadata": server.metadata,
            "ModelReady": directory.ready,
            "ModelMetadata": directory.metadata,
            "RepositoryIndex": directory.index,
            "ModelInfer": infer,
            "ModelStreamInfer": ModelStreamInfer(infer),
        },
        direct={"ModelInfer": infer.direct},
        check={"ModelInfer": check_infer, "ModelStreamInfer": check_infer},
        messages=_messages,
    )


def _messages(full_name: str) -> type[Any]:
    return InferRequest if full_name == InferRequest.DESCRIPTOR.full_name else private(full_name)


class Server:
    """What the protocol asks of the service itself."""

    def __init__(self, models: Models, family: str, accepting: Callable[[], bool]) -> None:
        self.models = models
        self.family = family
        self.accepting = accepting

    async def live(self, request: Any, call: Call) -> Any:
        """ServerLive: it is, or nobody would answer."""
        return descriptors.oip("ServerLiveResponse")(live=True)

    async def ready(self, request: Any, call: Call) -> Any:
        """ServerReady: one model at least, and not draining."""
        ready = self.accepting() and any(model.state == "READY" for model in self.models.list())
        return descriptors.oip("ServerReadyResponse")(ready=ready)

    async def metadata(self, request: Any, call: Call) -> Any:
        """ServerMetadata."""
        return descriptors.oip("ServerMetadataResponse")(
            name=f"ortmesh-{self.family}", version=ortmesh.__version__, extensions=EXTENSIONS
        )


class Directory:
    """What the protocol asks of the models without running them."""

    def __init__(self, models: Models) -> None:
        self.models = models

    async def ready(self, request: Any, call: Call) -> Any:
        """ModelReady: a model that is not served is not ready, which is no error."""
        try:
            ready = self.models.find(request.name, request.version).state == "READY"
        except NotFound:
            ready = False
        return descriptors.oip("ModelReadyResponse")(ready=ready)

    async def metadata(self, request: Any, call: Call) -> Any:
        """ModelMetadata. NotFound with near names, NotReady, ModelFailed."""
        model = self.models.named(request.name, request.version, call)
        return descriptors.oip("ModelMetadataResponse")(
            name=model.name,
            versions=[each.version for each in self.models.list() if each.name == model.name and each.state == "READY"],
            platform=PLATFORM,
            inputs=_described(model.inputs),
            outputs=_described(model.outputs),
        )

    async def index(self, request: Any, call: Call) -> Any:
        """RepositoryIndex: every version with its state."""
        if request.repository_name:
            raise BadInput("repository_name", "expected it empty: there is one repository")
        listed = [model for model in self.models.list() if model.state == "READY" or not request.ready]
        response = descriptors.oip("RepositoryIndexResponse")()
        for model in listed:
            response.models.add(
                name=model.name, version=model.version, state=STATES[model.state], reason=model.state_reason
            )
        return response


def _described(tensors: Mapping[str, TensorInfo]) -> list[dict[str, Any]]:
    """TensorMetadata messages, as protobuf's constructors take them."""
    return [{"name": info.name, "datatype": info.datatype, "shape": info.shape} for info in tensors.values()]
