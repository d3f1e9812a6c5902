"""Server streams: order, errors in the middle, readers that leave and readers that stall."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import grpc.aio
import pytest

from tests.front.conftest import DEADLINE_SECONDS, Serve, Service, until
from tests.front.test_calls import status_of


async def _read_all(call: Any) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


async def test_messages_arrive_in_order(service: Service) -> None:
    assert [message.value async for message in service.stream("Count", "300")] == [str(n) for n in range(300)]
    await service.ended("Count", "OK")


async def test_an_error_in_the_middle_carries_its_details(service: Service) -> None:
    call = service.stream("Count", "bad")
    assert (await call.read()).value == "one"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert len(status_of(caught.value).details) == 2


async def test_a_reader_that_leaves_ends_its_stream(service: Service) -> None:
    call = service.stream("Count", "hold")
    await call.read()
    await service.echo.entered.wait()
    call.cancel()
    await service.ended("Count", "CANCELLED")
    assert service.echo.ended == ["hold"]
    assert service.echo.calls[0].cancelled


async def test_a_reader_that_leaves_a_flood_ends_it(service: Service) -> None:
    call = service.stream("Count", "flood")
    await call.read()
    call.cancel()
    await service.ended("Count", "CANCELLED")


async def test_a_reader_that_stalls_is_dropped(serve: Serve) -> None:
    """It takes one message and no more: its handler is ended after the bound, and others are served meanwhile."""
    service = await serve(stall_seconds=1.0)
    stalled = service.stream("Count", "flood")
    await stalled.read()
    assert [message.value async for message in service.stream("Count", "3")] == ["0", "1", "2"]
    await until(lambda: sorted(service.echo.ended) == ["3", "flood"])
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _read_all(stalled)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    await service.ended("Count", "RESOURCE_EXHAUSTED")


async def test_a_reader_that_takes_nothing_at_all_is_dropped(serve: Serve) -> None:
    """Not even the first message, in whose middle the status can't be sent: it follows when the reader reads on."""
    service = await serve(stall_seconds=1.0)
    stalled = service.stream("Count", "flood")
    await until(lambda: service.echo.ended == ["flood"])
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _read_all(stalled)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    await service.ended("Count", "RESOURCE_EXHAUSTED")


async def test_a_slow_reader_gets_everything(service: Service) -> None:
    received = 0
    async for _ in service.stream("Count", "60"):
        received += 1
        await asyncio.sleep(0.002)
    assert received == 60


async def test_a_stream_keeps_the_callers_deadline(service: Service) -> None:
    call = service.stream("Count", "hold", timeout=DEADLINE_SECONDS)
    await call.read()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await service.ended("Count", "DEADLINE_EXCEEDED")
