"""The Open Inference Protocol for the mesh as a whole, and for names that no service has. Stage: gateway.

A call that names a known model never comes here: Envoy sends it to the model's service.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from grpc_health.v1 import health_pb2

import ortmesh
from ortmesh import descriptors
from ortmesh.errors import BadInput, ModelFailed, NotFound, NotReady
from ortmesh.front.call import Call
from ortmesh.front.health import Health
from ortmesh.front.methods import Method, bind, private
from ortmesh.front.scan import check_infer
from ortmesh.models.v1 import models_pb2
from ortmesh_gateway.mesh import Mesh
from ortmesh_gateway.methods import STREAM_MODEL_HEADER

NAME = "ortmesh"
SERVING: int = health_pb2.HealthCheckResponse.SERVING
PLATFORM = "onnxruntime_onnx"
STATES = {
    models_pb2.MODEL_STATE_LOADING: "LOADING",
    models_pb2.MODEL_STATE_READY: "READY",
    models_pb2.MODEL_STATE_FAILED: "UNAVAILABLE",
    models_pb2.MODEL_STATE_UNLOADING: "UNLOADING",
}
"""A model's state in the words of RepositoryIndex."""


def methods(mesh: Mesh, health: Health) -> list[Method]:
    """The rows of inference.GRPCInferenceService."""
    server = Oip(mesh, health)
    handlers: dict[str, Any] = {
        "ServerLive": server.live,
        "ServerReady": server.ready,
        "ServerMetadata": server.metadata,
        "ModelReady": server.model_ready,
        "ModelMetadata": server.model_metadata,
        "ModelInfer": server.infer,
        "ModelStreamInfer": server.stream_infer,
        "RepositoryIndex": server.index,
    }
    return bind(descriptors.OIP_SERVICE, handlers, check={"ModelInfer": check_infer}, messages=private)


class Oip:
    """Answers from the mesh's merged models and its health."""

    def __init__(self, mesh: Mesh, health: Health) -> None:
        self._mesh = mesh
        self._health = health

    async def live(self, request: Any, call: Call) -> Any:
        """ServerLive: it is, or nobody would answer."""
        return descriptors.oip("ServerLiveResponse")(live=True)

    async def ready(self, request: Any, call: Call) -> Any:
        """ServerReady: as health says of this service."""
        ready = self._health.status(descriptors.OIP_SERVICE) == SERVING
        return descriptors.oip("ServerReadyResponse")(ready=ready)

    async def metadata(self, request: Any, call: Call) -> Any:
        """ServerMetadata."""
        return descriptors.oip("ServerMetadataResponse")(name=NAME, version=ortmesh.__version__)

    async def index(self, request: Any, call: Call) -> Any:
        """RepositoryIndex: every version with its state."""
        if request.repository_name:
            raise BadInput("repository_name", "expected it empty: there is one repository")
        response = descriptors.oip("RepositoryIndexResponse")()
        for model in self._mesh.models:
            if model.state == models_pb2.MODEL_STATE_READY or not request.ready:
                response.models.add(
                    name=model.name,
                    version=model.version,
                    state=STATES.get(model.state, "UNAVAILABLE"),
                    reason=model.state_reason,
                )
        return response

    async def model_ready(self, request: Any, call: Call) -> Any:
        """ModelReady: a model that is not served is not ready, which is no error."""
        try:
            ready = self._mesh.find(request.name, request.version).state == models_pb2.MODEL_STATE_READY
        except NotFound:
            ready = False
        return descriptors.oip("ModelReadyResponse")(ready=ready)

    async def model_metadata(self, request: Any, call: Call) -> Any:
        """ModelMetadata: NotFound with near names."""
        self._refuse("name", request.name, request.version)

    async def infer(self, request: Any, call: Call) -> Any:
        """ModelInfer: NotFound with near names."""
        self._refuse("model_name", request.model_name, request.model_version)

    async def stream_infer(self, requests: Any, call: Call) -> AsyncIterator[Any]:
        """ModelStreamInfer: NotFound with near names. One without a model's name has come to the wrong place."""
        name = str(call.metadata.get(STREAM_MODEL_HEADER, ""))
        if not name:
            text = "expected this metadata: the name of a model; the stream goes to the service that has it"
            raise BadInput(STREAM_MODEL_HEADER, text)
        self._refuse(STREAM_MODEL_HEADER, name, "")
        yield

    def _refuse(self, field: str, name: str, version: str) -> None:
        """A known name comes here for the moment in which its route is on its way to Envoy: NotReady."""
        if not name:
            raise BadInput(field, "expected a model's name")
        model = self._mesh.find(name, version)
        if model.state == models_pb2.MODEL_STATE_FAILED:
            raise ModelFailed(f"{name} is not served: {model.state_reason}", resource=("model", name))
        raise NotReady(f"{name} is about to be served", retry_after_seconds=0.1, resource=("model", name))
