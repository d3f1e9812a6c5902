"""Health: waits until a server says that it serves, and that its models are loaded. Stage: command line."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ortmesh.models.v1 import models_pb2, models_pb2_grpc

RETRY_SECONDS = 0.2
"""Before a server that went away is asked again."""
_OPTIONS = [
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
]
"""A server that starts is found soon: gRPC's own backoff begins at a second. All models with their cards are large."""
_GONE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
"""How a stream ends whose server may come back, or that was too long."""

Model = models_pb2.Model
Models = Sequence[Model]


class NothingToServe(Exception):
    """No model of a service can become ready: each has failed, and none is tried again."""

    def __init__(self, models: Models) -> None:
        super().__init__("no model can become ready")
        self.models = models
        """All of the service's models; none when it has none."""


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


async def until_ready(address: str, on_waiting: Callable[[Models], None] = lambda failed: None) -> None:
    """Returns once the server at the address serves, and no model of its is being loaded any more.

    NothingToServe when that can't come to pass. `on_waiting` is told whenever all its models have failed and some are
    tried again: of those.
    """
    async with aclosing(_changes(address)) as changes:
        async for models in changes:
            states = {model.state for model in models}
            if states & {models_pb2.MODEL_STATE_LOADING, models_pb2.MODEL_STATE_UNLOADING}:
                continue
            if models_pb2.MODEL_STATE_READY in states:
                break
            if not (again := [model for model in models if model.retrying]):
                raise NothingToServe(models)
            on_waiting(again)
    await until_serving(address, [""])


async def until_loaded(address: str) -> Models:
    """Returns once no model of the mesh, or of the service there, is being loaded any more: each is ready, or failed.
    They are all returned.

    A service serves from its first model on; whoever is told that the mesh is ready may want another.
    """
    async with aclosing(_changes(address)) as changes:
        async for models in changes:
            if all(model.state != models_pb2.MODEL_STATE_LOADING for model in models):
                return models
    raise AssertionError("the changes have no end")


async def _changes(address: str) -> AsyncGenerator[Models, None]:
    """The models there, at once and after every change, for ever: also of a server that is not there yet, or away."""
    async with grpc.aio.insecure_channel(address, _OPTIONS) as channel:
        stub = models_pb2_grpc.ModelServiceStub(channel)
        while True:
            try:
                async for answer in stub.WatchModels(models_pb2.WatchModelsRequest(), wait_for_ready=True):
                    yield answer.models
            except grpc.aio.AioRpcError as error:
                if error.code() not in _GONE:
                    raise
            await asyncio.sleep(RETRY_SECONDS)  # the stream has an end of its own
