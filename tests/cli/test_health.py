"""What `ortmesh up` waits for before it says that the mesh is ready."""

from __future__ import annotations

import asyncio

from ortmesh.cli.health import until_ready
from ortmesh.models.v1 import models_pb2
from tests.cli.conftest import Mesh, model


async def test_no_model_may_be_loading_and_one_that_failed_is_not_waited_for(mesh: Mesh) -> None:
    """A service serves from its first model on: it is ready with its last, and so is the mesh."""
    ready, failed = model("first"), model("second", models_pb2.MODEL_STATE_FAILED)
    mesh.answers["WatchModels"] = [
        models_pb2.WatchModelsResponse(models=[ready, model("last", models_pb2.MODEL_STATE_LOADING)]),
        models_pb2.WatchModelsResponse(models=[ready, failed, model("last")]),
    ]
    await asyncio.wait_for(until_ready(mesh.address), 60)
    assert not mesh.answers["WatchModels"]
