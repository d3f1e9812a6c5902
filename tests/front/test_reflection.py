"""Reflection, as tools ask for it: how many may ask at once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from ortmesh.front.health import Health
from ortmesh.front.limits import FrontLimits
from ortmesh.front.observer import NoTelemetry
from ortmesh.front.server import Front

LIST = reflection_pb2.ServerReflectionRequest(list_services="")


@pytest.fixture
async def stub(
    sockets: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[reflection_pb2_grpc.ServerReflectionStub]:
    """Asks a server that lets two ask at once."""
    monkeypatch.setattr("ortmesh.front.reflection.MAX_STREAMS", 2)
    front = Front(
        [],
        target=f"unix:{sockets}/front",
        adapter="grpcio",
        health=Health(),
        telemetry=NoTelemetry(),
        limits=FrontLimits(drain_seconds=0.0),
        reflection=True,
    )
    await front.start()
    async with grpc.aio.insecure_channel(front.address) as channel:
        yield reflection_pb2_grpc.ServerReflectionStub(channel)
    await front.drain(1.0)


async def test_streams_are_bounded_and_each_makes_room_when_it_ends(
    stub: reflection_pb2_grpc.ServerReflectionStub,
) -> None:
    streams = [stub.ServerReflectionInfo() for _ in range(2)]
    for stream in streams:
        await stream.write(LIST)
        await stream.read()
    refused = stub.ServerReflectionInfo()
    assert await refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    await streams[0].done_writing()
    assert await streams[0].code() is grpc.StatusCode.OK
    freed = stub.ServerReflectionInfo()
    await freed.write(LIST)
    assert (await freed.read()).list_services_response.service
