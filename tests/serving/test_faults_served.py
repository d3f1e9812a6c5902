"""A fault as callers see it: through a running service, by its calls, its health and its list of models."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc.aio
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ortmesh.client import retry_after_seconds
from ortmesh.config import ServiceSettings
from ortmesh.descriptors import oip
from ortmesh.models.v1 import models_pb2, models_pb2_grpc
from ortmesh.serving import host
from ortmesh.serving.host import Host
from ortmesh.serving.store import Store
from tests.serving import graphs
from tests.serving.breakable import ILLEGAL_ACCESS, Faults
from tests.serving.oip.calls import raw_request
from tests.serving.shelf import HANG_SECONDS, ONES, install

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
def sockets() -> Iterator[Path]:
    """A folder whose path is short enough for sockets."""
    folder = Path(tempfile.mkdtemp(prefix="om-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(params=["native", "grpcio"])
async def channel(
    request: pytest.FixtureRequest, tmp_path: Path, sockets: Path, faults: Faults
) -> AsyncIterator[grpc.aio.Channel]:
    """A service with two models that double: `double`, which says that it runs on CUDA, and `other`."""
    store = Store(tmp_path / "store")
    graphs.double(tmp_path / "double")
    install(store, tmp_path / "double")
    install(store, tmp_path / "double", name="other")
    faults.devices.add("double")
    address = f"unix:{sockets}/s"
    settings = ServiceSettings(
        family="nlp", address=address, adapter=request.param, store=store.root, drain_seconds=0, grace_seconds=1
    )
    service = Host(settings, "ortmesh.nlp.v1.NlpService", lambda models: [])
    await service.start()
    await service.models.until_loaded()
    async with grpc.aio.insecure_channel(address) as made:
        yield made
    await service.stop()


async def test_a_service_whose_device_is_lost_ends_to_be_started_anew(
    tmp_path: Path, sockets: Path, faults: Faults
) -> None:
    store = Store(tmp_path / "store")
    graphs.double(tmp_path / "double")
    install(store, tmp_path / "double")
    faults.devices.add("double")
    settings = ServiceSettings(
        family="nlp", address=f"unix:{sockets}/s", store=store.root, drain_seconds=0, grace_seconds=1
    )
    serving = asyncio.create_task(host._serve(settings, "ortmesh.nlp.v1.NlpService", lambda models: []))
    async with grpc.aio.insecure_channel(settings.address) as channel:
        await ready(channel)
        faults.always("double", ILLEGAL_ACCESS)
        with pytest.raises(grpc.aio.AioRpcError):
            await infer(channel, "double")
        async with asyncio.timeout(HANG_SECONDS):
            assert await serving, "whoever watches it is told by the exit code"


async def ready(channel: grpc.aio.Channel) -> None:
    """Returns once the service says that it is."""
    async with asyncio.timeout(HANG_SECONDS):
        await channel.channel_ready()
        health = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        async for answer in health:
            if answer.status == SERVING:
                return


async def infer(channel: grpc.aio.Channel, model: str) -> list[float]:
    """One tensor call."""
    call = channel.unary_unary(
        "/inference.GRPCInferenceService/ModelInfer",
        request_serializer=lambda request: request.SerializeToString(),
        response_deserializer=oip("ModelInferResponse").FromString,
    )
    answer: Any = await call(raw_request(model, {"x": ("FP32", ONES["x"])}), timeout=HANG_SECONDS)
    return [float(value) for value in np.frombuffer(answer.raw_output_contents[0], np.float32)]


class Watched:
    """What a stream of answers has said: of a model's health, or of all models."""

    def __init__(self, stream: Any) -> None:
        self.said: list[Any] = []
        self._news = asyncio.Event()
        self._task = asyncio.create_task(self._read(stream))

    async def _read(self, stream: Any) -> None:
        async for answer in stream:
            self.said.append(answer)
            self._news.set()

    async def until(self, holds: Any, after: int = 0) -> int:
        """The place of the first answer from `after` on for which `holds` is true."""
        async with asyncio.timeout(HANG_SECONDS):
            while True:
                for place in range(after, len(self.said)):
                    if holds(self.said[place]):
                        return place
                self._news.clear()
                await self._news.wait()

    async def end(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def others_serve(channel: grpc.aio.Channel, until: asyncio.Event) -> int:
    """Calls the other model until the event; how often it answered. Any failed call fails the test."""
    answered = 0
    while not until.is_set():
        assert await infer(channel, "other") == [2, 2, 2, 2]
        answered += 1
    return answered


def state(name: str, wanted: models_pb2.ModelState.ValueType) -> Any:
    return lambda answer: any(model.name == name and model.state == wanted for model in answer.models)


async def test_a_model_whose_device_fails_is_away_for_a_moment_and_all_are_told(
    channel: grpc.aio.Channel, faults: Faults
) -> None:
    """INTERNAL for the call that was being computed, UNAVAILABLE with a time to come again for the next ones."""
    health = Watched(health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service="models/double")))
    models = Watched(models_pb2_grpc.ModelServiceStub(channel).WatchModels(models_pb2.WatchModelsRequest()))
    await health.until(lambda answer: answer.status == SERVING)
    await models.until(state("double", models_pb2.MODEL_STATE_READY))
    over = asyncio.Event()
    others = asyncio.create_task(others_serve(channel, over))

    faults.once("double", ILLEGAL_ACCESS)
    faults.may_open.clear()
    with pytest.raises(grpc.aio.AioRpcError) as begun:
        await infer(channel, "double")
    assert begun.value.code() is grpc.StatusCode.INTERNAL
    with pytest.raises(grpc.aio.AioRpcError) as later:
        await infer(channel, "double")
    assert later.value.code() is grpc.StatusCode.UNAVAILABLE
    assert retry_after_seconds(later.value)
    faults.may_open.set()

    away = await health.until(lambda answer: answer.status == NOT_SERVING)
    await health.until(lambda answer: answer.status == SERVING, after=away)
    failed = await models.until(state("double", models_pb2.MODEL_STATE_FAILED))
    (told,) = [model for model in models.said[failed].models if model.name == "double"]
    assert told.state_reason.startswith("its executor died: CUDA failure 700")
    await models.until(state("double", models_pb2.MODEL_STATE_READY), after=failed)
    assert await infer(channel, "double") == [2, 2, 2, 2]
    over.set()
    assert await others > 0
    await health.end()
    await models.end()
