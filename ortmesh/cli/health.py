"""Health: waits until a server says that it serves, and until a mesh's calls arrive. Stage: command line."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ortmesh import descriptors
from ortmesh.client import AsyncClient
from ortmesh.models.v1 import models_pb2

RETRY_SECONDS = 0.2
"""Before a server that went away, or does not get the calls yet, is asked again."""
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


async def until_routed(address: str, families: list[str]) -> None:
    """Returns once no model is being loaded any more and a call through the gateway arrives at each family.

    A service serves from its first model on: the caller who is told that the mesh is ready may want another.
    The gateway's own view of health and its proxy's differ by up to a health check, a quarter of a second.
    """
    async with AsyncClient(address) as mesh:
        models = await _until_loaded(mesh)
        ready = {model.family: model.name for model in models if model.state == models_pb2.MODEL_STATE_READY}
        names = [ready[family] for family in families if family in ready]
        await asyncio.gather(*(_until_routed(mesh.channel, name) for name in names))


async def _until_loaded(mesh: AsyncClient) -> Sequence[models_pb2.Model]:
    """The mesh's models once each is ready or has failed."""
    while True:
        async for answer in mesh.models.WatchModels(models_pb2.WatchModelsRequest()):
            if all(model.state != models_pb2.MODEL_STATE_LOADING for model in answer.models):
                return answer.models
        await asyncio.sleep(RETRY_SECONDS)  # the stream has an end of its own


async def _until_routed(channel: grpc.aio.Channel, name: str) -> None:
    """Asks for the model's readiness by OIP, which the proxy sends to the model's own service."""
    ask: Any = channel.unary_unary(
        f"/{descriptors.OIP_SERVICE}/ModelReady",
        request_serializer=descriptors.oip("ModelReadyRequest").SerializeToString,
        response_deserializer=descriptors.oip("ModelReadyResponse").FromString,
    )
    while True:
        try:
            await ask(descriptors.oip("ModelReadyRequest")(name=name), timeout=10)
            return
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
        await asyncio.sleep(RETRY_SECONDS)
