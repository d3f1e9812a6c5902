"""grpc.health.v1, as a balancer and a watcher see it."""

from __future__ import annotations

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ortmesh.front.health import Health
from tests.front.conftest import Serve, Service

Request = health_pb2.HealthCheckRequest
Status = health_pb2.HealthCheckResponse


async def test_check_answers_for_each_name(service: Service) -> None:
    stub = health_pb2_grpc.HealthStub(service.channel)
    assert (await stub.Check(Request())).status == Status.NOT_SERVING
    service.health.set("", True)
    service.health.set("models/minilm", True)
    assert (await stub.Check(Request())).status == Status.SERVING
    assert (await stub.Check(Request(service="models/minilm"))).status == Status.SERVING


async def test_check_answers_not_found_for_an_unknown_name(service: Service) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await health_pb2_grpc.HealthStub(service.channel).Check(Request(service="models/none"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_watch_tells_of_every_change(service: Service) -> None:
    """An unknown name is SERVICE_UNKNOWN, and the stream goes on until it comes, and after it went."""
    watch = health_pb2_grpc.HealthStub(service.channel).Watch(Request(service="models/minilm"))
    assert (await watch.read()).status == Status.SERVICE_UNKNOWN
    service.health.set("models/minilm", False)
    assert (await watch.read()).status == Status.NOT_SERVING
    service.health.set("models/minilm", True)
    assert (await watch.read()).status == Status.SERVING
    service.health.set("models/other", True)
    service.health.remove("models/minilm")
    assert (await watch.read()).status == Status.SERVICE_UNKNOWN
    watch.cancel()
    await service.ended("Watch", "CANCELLED")


async def test_watchers_hear_of_the_drain_and_are_let_go(serve: Serve) -> None:
    service = await serve(drain_seconds=0.1)
    service.health.set("", True)
    watch = health_pb2_grpc.HealthStub(service.channel).Watch(Request())
    assert (await watch.read()).status == Status.SERVING
    await service.drain()
    assert (await watch.read()).status == Status.NOT_SERVING
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await watch.read()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_what_is_set_during_a_drain_does_not_count() -> None:
    health = Health()
    health.drain()
    health.set("", True)
    assert health.status("") == Status.NOT_SERVING


def test_liveness_is_serving_whatever_else_is_not() -> None:
    """Who restarts what does not answer must not restart a process that drains, or whose models have all failed."""
    health = Health()
    health.set("", False)
    assert health.status("liveness") == Status.SERVING
    health.drain()
    assert health.status("liveness") == Status.SERVING


async def test_watchers_are_bounded_and_checks_are_not(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """They need no permits: without a bound they would fill what stands before the process."""
    monkeypatch.setattr("ortmesh.front.health.MAX_WATCHERS", 2)
    stub = health_pb2_grpc.HealthStub(service.channel)
    watches = [stub.Watch(Request()) for _ in range(2)]
    for watch in watches:
        await watch.read()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Watch(Request()).read()
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (await stub.Check(Request())).status == Status.NOT_SERVING
    watches[0].cancel()
    await service.ended("Watch", "CANCELLED")
    assert (await stub.Watch(Request()).read()).status == Status.NOT_SERVING
