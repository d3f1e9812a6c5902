"""ModelService: which models this service has, and how each is doing. Stage: task."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING

from ortmesh.front.call import Call
from ortmesh.front.methods import Method, bind, generated
from ortmesh.front.pages import page_of, requested
from ortmesh.models.v1 import models_pb2
from ortmesh.serving.batching_report import batching_of
from ortmesh.serving.signature import TensorInfo
from ortmesh.serving.warmup import Mode

if TYPE_CHECKING:
    from ortmesh.serving.model import Model
    from ortmesh.serving.models import Models

SERVICE = "ortmesh.models.v1.ModelService"


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
        """One page. BadInput for a negative size and for a made-up token."""
        page, token = page_of(matching(self.models, request.family, request.task), request)
        return models_pb2.ListModelsResponse(models=map(describe, page), next_page_token=token)


class GetModel:
    """ModelService.GetModel: one model, whatever its state."""

    def __init__(self, models: Models) -> None:
        self.models = models

    async def __call__(self, request: models_pb2.GetModelRequest, call: Call) -> models_pb2.Model:
        """The model. BadInput without a name; NotFound with near names."""
        return describe(self.models.find(*requested(request)))


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
        max_batch_size=1 if model.mode is Mode.ALONE else card.batching.max_rows,
        provider=model.provider,
        license=card.license.weights,
        attribution=card.license.attribution,
        description=card.description,
        card_json=card.model_dump_json(),
        batching=batching_of(model),
        default_for=model.default_for,
        retrying=model.retrying,
    )


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
