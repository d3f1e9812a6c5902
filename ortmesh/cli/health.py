"""Health: waits until a server says that it serves, and that its models are loaded. Stage: command line."""

from __future__ import annotations

import asyncio

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ortmesh.client import AsyncClient
from ortmesh.models.v1 import models_pb2

RETRY_SECONDS = 0.2
"""Before a server that went away is asked again."""
_OPTIONS = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 1000)]
"""A server that starts is found soon: gRPC's own backoff begins at a second."""


async def until_serving(address: str, services: list[str]) -> None:
    """Returns once the server at the address says SERVING for each service ("" is the whole process).

    Waits for as long as it takes, also for a server that is not there yet.
    """
    async with grpc.aio.insecure_channel(address, _OPTIONS) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        await asyncio.gather(*(_until_serving(stub, service) for service in services))


async def _until_serving(stub: health_pb2_grpc.HealthStub, service: str) -> None:
    serving = health_pb2.HealthCheckResponse.SERVING
    while True:
        try:
            async for answer in stub.Watch(health_pb2.HealthCheckRequest(service=service), wait_for_ready=True):
                if answer.status == serving:
                    return
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
        await asyncio.sleep(RETRY_SECONDS)


async def until_ready(address: str) -> None:
    """Returns once the server at the address serves, and no model of its is being loaded any more."""
    await until_serving(address, [""])
    await until_loaded(address)


async def until_loaded(address: str) -> None:
    """Returns once no model of the mesh, or of the service there, is being loaded any more: each is ready, or failed.

    A service serves from its first model on; whoever is told that the mesh is ready may want another.
    """
    async with AsyncClient(address) as mesh:
        while True:
            try:
                async for answer in mesh.models.WatchModels(models_pb2.WatchModelsRequest()):
                    if all(model.state != models_pb2.MODEL_STATE_LOADING for model in answer.models):
                        return
            except grpc.aio.AioRpcError as error:
                if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                    raise
            await asyncio.sleep(RETRY_SECONDS)  # the stream has an end of its own
