"""ModelService over all services: lists, shows and watches the models of the whole mesh. Stage: gateway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from ortmesh.front.call import Call
from ortmesh.front.methods import Method, bind, generated
from ortmesh.front.pages import page_of, requested
from ortmesh.models.v1 import models_pb2
from ortmesh_gateway.mesh import Mesh, Model

SERVICE = "ortmesh.models.v1.ModelService"


def methods(mesh: Mesh) -> list[Method]:
    """The rows of ortmesh.models.v1.ModelService."""
    service = ModelService(mesh)
    return bind(
        SERVICE,
        {"ListModels": service.list_page, "GetModel": service.get, "WatchModels": service.watch},
        messages=generated(models_pb2),
    )


class ModelService:
    """Answers from the mesh's merged models."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh

    async def list_page(self, request: models_pb2.ListModelsRequest, call: Call) -> models_pb2.ListModelsResponse:
        """One page. BadInput for a negative size and for a made-up token."""
        page, token = page_of(self._matching(request.family, request.task), request)
        return models_pb2.ListModelsResponse(models=page, next_page_token=token)

    async def get(self, request: models_pb2.GetModelRequest, call: Call) -> Model:
        """One model, whatever its state. BadInput without a name; NotFound with near names."""
        return self._mesh.find(*requested(request))

    async def watch(
        self, request: models_pb2.WatchModelsRequest, call: Call
    ) -> AsyncIterator[models_pb2.WatchModelsResponse]:
        """All that match, at once and after every change; changes during an answer are told once."""
        changed = asyncio.Event()
        unsubscribe = self._mesh.watch(changed.set)
        told: models_pb2.WatchModelsResponse | None = None
        try:
            while True:
                changed.clear()
                now = models_pb2.WatchModelsResponse(models=self._matching(request.family, request.task))
                if now != told:
                    told = now
                    yield now
                await changed.wait()
        finally:
            unsubscribe()

    def _matching(self, family: str, task: str) -> list[Model]:
        return [
            model for model in self._mesh.models if family in ("", model.family) and (not task or task in model.tasks)
        ]
