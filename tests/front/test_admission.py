"""Permits: what is too much is refused before it costs, and says when to come again."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ortmesh.errors import Draining, Overloaded
from ortmesh.front.admission import Admission
from tests.front.conftest import Serve, Service, until
from tests.front.test_calls import detail


async def _fill(service: Service, method: str, count: int) -> list[Any]:
    """Holds so many calls."""
    calls = [service.unary(method, f"held {number}") for number in range(count)]
    await until(lambda: len(service.echo.calls) >= count)
    return calls


async def test_calls_over_the_bound_are_refused_with_a_time_to_retry(serve: Serve) -> None:
    service = await serve(max_calls=2)
    held = await _fill(service, "Hold", 2)
    error = await service.refused("Say", "one more")
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    retry = detail(error, error_details_pb2.RetryInfo).retry_delay
    assert retry.ToTimedelta().total_seconds() > 0
    assert detail(error, error_details_pb2.ErrorInfo).reason == "OVERLOADED"
    service.echo.release.set()
    await asyncio.gather(*held)
    assert await service.say("Say", "again") == "again"


async def test_bytes_over_the_bound_are_refused(serve: Serve) -> None:
    service = await serve(max_bytes=700)
    held = service.unary("Hold", "x" * 400)
    await service.echo.entered.wait()
    error = await service.refused("Say", "x" * 400)
    assert "bytes" in str(error.details())
    assert await service.say("Say", "small") == "small"
    service.echo.release.set()
    await held


async def test_streams_have_permits_of_their_own(serve: Serve) -> None:
    service = await serve(max_calls=1, max_streams=1)
    held = await _fill(service, "Hold", 1)
    first = service.stream("Count", "hold")
    assert (await first.read()).value == "held"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.stream("Count", "3").read()
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    service.echo.release.set()
    await asyncio.gather(*held)
    assert await first.read() is grpc.aio.EOF


async def test_health_answers_when_everything_is_full(serve: Serve) -> None:
    service = await serve(max_calls=1)
    held = await _fill(service, "Hold", 1)
    health = health_pb2_grpc.HealthStub(service.channel)
    assert (await health.Check(health_pb2.HealthCheckRequest())).status == health_pb2.HealthCheckResponse.NOT_SERVING
    service.echo.release.set()
    await asyncio.gather(*held)


def test_the_time_to_retry_follows_how_long_calls_take() -> None:
    admission = Admission(max_calls=1, max_bytes=1000, max_streams=1)
    for _ in range(200):
        admission.enter(10)
        admission.leave(10, held_seconds=2.0)
    admission.enter(10)
    with pytest.raises(Overloaded) as caught:
        admission.enter(10)
    assert caught.value.retry_after_seconds == pytest.approx(2.0, rel=0.05)


def test_a_closed_admission_tells_once_the_last_permit_came_back() -> None:
    admission = Admission(max_calls=2, max_bytes=1000, max_streams=1)
    told: list[bool] = []
    admission.enter(10)
    admission.enter_stream(10)
    admission.close(lambda: told.append(True))
    with pytest.raises(Draining):
        admission.enter(10)
    admission.leave(10, 0.1)
    assert told == []
    admission.leave_stream(10, 0.1)
    assert told == [True]
