"""What `ortmesh up` waits for before it says that the mesh is ready."""

from __future__ import annotations

import asyncio

import pytest

from ortmesh.cli.failed_models import nothing_to_serve
from ortmesh.cli.health import NothingToServe, until_ready
from ortmesh.models.v1 import models_pb2
from tests.cli.conftest import Mesh, model

FAILED = models_pb2.MODEL_STATE_FAILED


async def test_no_model_may_be_loading_and_one_that_failed_is_not_waited_for(mesh: Mesh) -> None:
    """A service serves from its first model on: it is ready with its last, and so is the mesh."""
    ready, failed = model("first"), model("second", models_pb2.MODEL_STATE_FAILED)
    mesh.answers["WatchModels"] = [
        models_pb2.WatchModelsResponse(models=[ready, model("last", models_pb2.MODEL_STATE_LOADING)]),
        models_pb2.WatchModelsResponse(models=[ready, failed, model("last")]),
    ]
    await asyncio.wait_for(until_ready(mesh.address), 60)
    assert not mesh.answers["WatchModels"]


async def test_models_that_have_all_failed_are_not_waited_for(mesh: Mesh) -> None:
    """Only a person can help."""
    loading, failed = (model("first", state) for state in (models_pb2.MODEL_STATE_LOADING, FAILED))
    mesh.answers["WatchModels"] = [
        models_pb2.WatchModelsResponse(models=[loading, model("second", FAILED)]),
        models_pb2.WatchModelsResponse(models=[failed, model("second", FAILED)]),
    ]
    with pytest.raises(NothingToServe) as caught:
        await asyncio.wait_for(until_ready(mesh.address), 60)
    assert [each.name for each in caught.value.models] == ["first", "second"]


async def test_one_that_is_tried_again_is_waited_for_and_told(mesh: Mesh) -> None:
    again = model("first", FAILED)
    again.retrying = True
    mesh.answers["WatchModels"] = [
        models_pb2.WatchModelsResponse(models=[again, model("second", FAILED)]),
        models_pb2.WatchModelsResponse(models=[model("first"), model("second", FAILED)]),
    ]
    told: list[str] = []
    waiting = until_ready(mesh.address, lambda failed: told.extend(each.name for each in failed))
    await asyncio.wait_for(waiting, 60)
    assert told == ["first"]


async def test_a_service_without_models_is_not_waited_for(mesh: Mesh) -> None:
    """E.g. where ORTMESH_SERVICE_ONLY names others."""
    mesh.answers["WatchModels"] = [models_pb2.WatchModelsResponse()]
    with pytest.raises(NothingToServe) as caught:
        await asyncio.wait_for(until_ready(mesh.address), 60)
    assert "nlp has no models to serve" in nothing_to_serve("nlp", caught.value.models, [], None)
