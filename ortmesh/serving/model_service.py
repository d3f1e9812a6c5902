"""ModelService: which models this service has, and how each is doing. Stage: task."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING

from ortmesh.errors import BadInput
from ortmesh.front.call import Call
from ortmesh.front.methods import Method, bind, generated
from ortmesh.models.v1 import models_pb2
from ortmesh.serving.signature import TensorInfo

if TYPE_CHECKING:
    from ortmesh.serving.model import Model
    from ortmesh.serving.models import Models

SERVICE = "ortmesh.models.v1.ModelService"
PAGE_SIZE = 100
MAX_PAGE_SIZE = 1000


def methods(models: Models) -> list[Method]:
    """The rows of ortmesh.models.v1.ModelService."""
    return bind(
        SERVICE,
        {"ListModels": ListModels(models), "GetModel": GetModel(models), "WatchModels": WatchModels(models)},
        messages=generated(models_pb2),
    )


class ListModels:
    """ModelService.ListModels: a page of the models, by name and version."""

    def __init__(self, models: Models) -> None:
        self.models = models

    async def __call__(self, request: models_pb2.ListModelsRequest, call: Call) -> models_pb2.ListModelsResponse:
        """One page. A token holds the last model's key, so that models may come and go between pages."""
        if request.page_size < 0:
            raise BadInput("page_size", f"{request.page_size}: expected 1 to {MAX_PAGE_SIZE}, or 0 for {PAGE_SIZE}")
        size = min(request.page_size or PAGE_SIZE, MAX_PAGE_SIZE)
        last = read_token(request.page_token)
        left = [model for model in matching(self.models, request.family, request.task) if _key(model) > last]
        page = left[:size]
        token = write_token(_key(page[-1])) if len(left) > size else ""
        return models_pb2.ListModelsResponse(models=map(describe, page), next_page_token=token)


class GetModel:
    """ModelService.GetModel: one model, whatever its state."""

    def __init__(self, models: Models) -> None:
        self.models = models

    async def __call__(self, request: models_pb2.GetModelRequest, call: Call) -> models_pb2.Model:
        """The model. BadInput without a name; NotFound with near names."""
        if not request.model:
            raise BadInput("model", "expected a model's name, or name@version")
        name, _, version = request.model.partition("@")
        return describe(self.models.find(name, version))


class WatchModels:
    """ModelService.WatchModels: all models that match, at once and after every change."""

    def __init__(self, models: Models) -> None:
        self.models = models

    async def __call__(
        self, request: models_pb2.WatchModelsRequest, call: Call
    ) -> AsyncIterator[models_pb2.WatchModelsResponse]:
        """Answers until the call ends. Changes that follow each other while an answer is sent are told once."""
        changed = asyncio.Event()
        unsubscribe = self.models.watch(changed.set)
        told: models_pb2.WatchModelsResponse | None = None
        try:
            await self.models.looked.wait()  # an empty first answer would say that there are no models
            while not call.cancelled:
                changed.clear()
                models = matching(self.models, request.family, request.task)
                now = models_pb2.WatchModelsResponse(models=map(describe, models))
                if now != told:
                    told = now
                    yield now
                await changed.wait()
        finally:
            unsubscribe()


def matching(models: Models, family: str, task: str) -> list[Model]:
    """The models of a family and for a task (empty: all), ordered by name and version."""
    return sorted(
        (
            model
            for model in models.list()
            if family in ("", model.card.family) and (not task or task in model.card.tasks)
        ),
        key=_key,
    )


def describe(model: Model) -> models_pb2.Model:
    """A model as the API shows it."""
    card = model.card
    return models_pb2.Model(
        name=model.name,
        version=model.version,
        family=card.family,
        tasks=card.tasks,
        default_version=model.is_default,
        state=models_pb2.ModelState.Value(f"MODEL_STATE_{model.state}"),
        state_reason=model.state_reason,
        inputs=_tensors(model.inputs),
        outputs=_tensors(model.outputs),
        max_batch_size=card.batching.max_rows,
        provider=model.provider,
        license=card.license.weights,
        attribution=card.license.attribution,
        description=card.description,
        card_json=card.model_dump_json(),
    )


def write_token(key: tuple[str, str]) -> str:
    """The page token after the model of this (name, version)."""
    return base64.urlsafe_b64encode("@".join(key).encode()).decode()


def read_token(token: str) -> tuple[str, str]:
    """The (name, version) after which a page begins; empty ones for the first page. BadInput for a made-up token."""
    if not token:
        return "", ""
    try:
        name, at, version = base64.b64decode(token, altchars=b"-_", validate=True).decode().partition("@")
    except (binascii.Error, ValueError):
        name = at = version = ""
    if not at:
        raise BadInput("page_token", "expected the next_page_token of an earlier answer, or nothing")
    return name, version


def _key(model: Model) -> tuple[str, str]:
    return model.name, model.version


def _tensors(tensors: Mapping[str, TensorInfo]) -> list[models_pb2.Tensor]:
    return [
        models_pb2.Tensor(
            name=info.name,
            datatype=info.datatype,
            shape=info.shape,
            batch_axis=-1 if info.batch_axis is None else info.batch_axis,
        )
        for info in tensors.values()
    ]
