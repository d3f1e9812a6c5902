"""ModelService over all services: lists, shows and watches the models of the whole mesh. Stage: gateway."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator

from ortmesh.errors import BadInput
from ortmesh.front.call import Call
from ortmesh.front.methods import Method, bind, generated
from ortmesh.models.v1 import models_pb2
from ortmesh_gateway.mesh import Mesh, Model

SERVICE = "ortmesh.models.v1.ModelService"
PAGE_SIZE = 100
MAX_PAGE_SIZE = 1000


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
        """One page. Its token holds the last model's key, so that models may come and go between pages."""
        if request.page_size < 0:
            raise BadInput("page_size", f"{request.page_size}: expected 1 to {MAX_PAGE_SIZE}, or 0 for {PAGE_SIZE}")
        size = min(request.page_size or PAGE_SIZE, MAX_PAGE_SIZE)
        last = _read_token(request.page_token)
        left = [model for model in self._matching(request.family, request.task) if _key(model) > last]
        token = _write_token(left[size - 1]) if len(left) > size else ""
        return models_pb2.ListModelsResponse(models=left[:size], next_page_token=token)

    async def get(self, request: models_pb2.GetModelRequest, call: Call) -> Model:
        """One model, whatever its state. BadInput without a name; NotFound with near names."""
        if not request.model:
            raise BadInput("model", "expected a model's name, or name@version")
        name, _, version = request.model.partition("@")
        return self._mesh.find(name, version)

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


def _key(model: Model) -> tuple[str, str]:
    return model.name, model.version


def _write_token(model: Model) -> str:
    return base64.urlsafe_b64encode("@".join(_key(model)).encode()).decode()


def _read_token(token: str) -> tuple[str, str]:
    """The key after which a page begins, empty for the first page. BadInput for a made-up token."""
    if not token:
        return "", ""
    try:
        name, at, version = base64.b64decode(token, altchars=b"-_", validate=True).decode().partition("@")
    except (binascii.Error, ValueError):
        name = at = version = ""
    if not at:
        raise BadInput("page_token", "expected the next_page_token of an earlier answer, or nothing")
    return name, version
