"""The end of a service: no call is lost, and none holds it up for ever."""

from __future__ import annotations

import asyncio

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2

from tests.front.conftest import HANG_SECONDS, Serve, Service, until
from tests.front.test_calls import detail


async def _keep_calling(service: Service, method: str, stop: asyncio.Event, counts: dict[str, int]) -> None:
    """A caller that repeats what was refused before it began, and what nobody listened to."""
    while not stop.is_set():
        try:
            await service.say(method, "hello")
            counts["answered"] += 1
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            # A call that was cut off in the middle would say so in its text instead of carrying our details.
            refused = "grpc-status-details-bin" in dict(error.trailing_metadata() or ())
            unheard = "connect" in str(error.details()).lower() or "GOAWAY" in str(error.details())
            counts["refused" if refused else "unheard" if unheard else "lost"] += 1
            return


@pytest.mark.parametrize("method", ["Say", "Direct"])
async def test_no_call_is_lost_while_a_busy_service_drains(serve: Serve, method: str) -> None:
    service = await serve(drain_seconds=0.2)
    stop, counts = asyncio.Event(), {"answered": 0, "refused": 0, "unheard": 0, "lost": 0}
    callers = [asyncio.create_task(_keep_calling(service, method, stop, counts)) for _ in range(20)]
    await until(lambda: counts["answered"] >= 200)
    await service.drain()
    stop.set()
    await asyncio.gather(*callers)
    assert counts["lost"] == 0
    assert counts["answered"] == service.recorder.codes[method, "OK"]


async def test_running_calls_end_before_the_service_does(service: Service) -> None:
    held = service.unary("Hold", "held")
    streaming = service.stream("Count", "hold")
    await streaming.read()
    await until(lambda: len(service.echo.calls) == 2)
    draining = asyncio.create_task(service.drain(grace_seconds=HANG_SECONDS))
    await until(lambda: service.front._dispatcher.admission.max_calls == 0)
    error = await service.refused("Say", "too late")
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert detail(error, error_details_pb2.ErrorInfo).reason == "DRAINING"
    assert not draining.done()
    service.echo.release.set()
    assert (await held).value == "held"
    assert await streaming.read() is grpc.aio.EOF
    await draining


@pytest.mark.parametrize("method", ["Hold", "Direct"])
async def test_calls_that_never_end_are_told_so_after_the_grace(service: Service, method: str) -> None:
    """Not UNAVAILABLE, which would promise that nothing has begun."""
    held = service.unary(method, "later")
    await until(lambda: service.echo.calls or service.echo.held)
    async with asyncio.timeout(HANG_SECONDS):
        await service.drain(grace_seconds=0.2)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await held
    assert caught.value.code() is grpc.StatusCode.CANCELLED
    assert "stopped" in str(caught.value.details())


async def test_streams_that_watch_do_not_hold_up_a_drain(service: Service) -> None:
    watching = service.stream("Watch", "hold")
    await watching.read()
    async with asyncio.timeout(HANG_SECONDS):
        await service.drain(grace_seconds=10 * HANG_SECONDS)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await watching.read()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
