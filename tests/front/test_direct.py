"""Direct handlers: answered from any thread, counted like all others, ended exactly once."""

from __future__ import annotations

import asyncio
import threading

import grpc
import grpc.aio
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from google.rpc import error_details_pb2

from ortmesh.errors import Overloaded
from tests.front.conftest import HANG_SECONDS, Serve, Service, until
from tests.front.test_calls import detail


async def _held(service: Service) -> None:
    """Waits until a direct handler has taken a call."""
    assert await asyncio.to_thread(service.echo.direct_entered.wait, HANG_SECONDS)


async def test_another_thread_answers(service: Service) -> None:
    assert await service.say("Direct", "hello") == "hello, from another thread"
    await service.ended("Direct", "OK")


async def test_a_direct_handler_may_leave_a_call_to_the_coroutine(service: Service) -> None:
    assert await service.say("Direct", "no") == "no"


async def test_many_calls_at_once_are_each_answered_once(service: Service) -> None:
    answers = await asyncio.gather(*(service.say("Direct", f"{number}") for number in range(300)))
    assert answers == [f"{number}, from another thread" for number in range(300)]
    await service.ended("Direct", "OK", 300)
    assert service.recorder.codes.total() == 300


# Of grpcio direct handlers run on the loop, where this test's callers are, too.
@pytest.mark.parametrize("adapter", ["native"], indirect=True)
async def test_who_comes_beside_a_burst_waits_for_a_few_of_its_calls_alone(service: Service) -> None:
    many, mine = (("x-ortmesh-caller", "many"),), (("x-ortmesh-caller", "mine"),)
    burst = [asyncio.ensure_future(service.say("Direct", "slow", metadata=many)) for _ in range(200)]
    await until(lambda: len(service.echo.taken) > 10)
    await service.say("Direct", "hello", metadata=mine)
    await asyncio.gather(*burst)
    assert service.echo.taken.index("mine") < 180


async def test_an_error_that_is_raised_is_answered(service: Service) -> None:
    error = await service.refused("Direct", "bad")
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert detail(error, error_details_pb2.BadRequest).field_violations[0].field == "value"


async def test_a_bug_of_a_direct_handler_stays_inside(service: Service) -> None:
    error = await service.refused("Direct", "bug")
    assert error.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in str(error.details())
    assert await service.say("Direct", "hello") == "hello, from another thread"


@pytest.mark.parametrize("method", ["Direct", "Say"])
async def test_a_panic_ends_its_own_call_alone(service: Service, method: str) -> None:
    error = await service.refused(method, "panic")
    assert error.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in str(error.details())
    assert "hello" in await service.say("Direct", "hello")
    await service.ended(method, "INTERNAL")
    assert await service.say("Say", "hello") == "hello"


async def test_an_error_from_another_thread_is_answered(service: Service) -> None:
    call = service.unary("Direct", "later")
    await _held(service)
    _, _, reply = service.echo.held[0]
    threading.Thread(target=reply.fail, args=(Overloaded("full", retry_after_seconds=1.5),)).start()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert detail(caught.value, error_details_pb2.RetryInfo).retry_delay.ToTimedelta().total_seconds() == 1.5


async def test_a_second_answer_is_ignored(service: Service) -> None:
    call = service.unary("Direct", "later")
    await _held(service)
    _, _, reply = service.echo.held[0]
    reply.finish(StringValue(value="first").SerializeToString())
    reply.finish(StringValue(value="second").SerializeToString())
    reply.fail(RuntimeError("third"))
    assert (await call).value == "first"
    await service.ended("Direct", "OK")
    assert service.echo.ended == ["later"]
    assert service.recorder.codes.total() == 1


async def test_a_call_that_is_cancelled_after_its_item_was_taken_ends_quietly(service: Service) -> None:
    call = service.unary("Direct", "later")
    await _held(service)
    _, held, reply = service.echo.held[0]
    call.cancel()
    await until(lambda: held.cancelled)
    reply.finish(StringValue(value="too late").SerializeToString())
    await service.ended("Direct", "CANCELLED")
    assert service.echo.ended == ["later"]


async def test_a_direct_call_keeps_its_default_deadline(service: Service) -> None:
    """Nobody answers it: its caller hears of the deadline, and the late answer harms nothing."""
    call = service.unary("QuickDirect", "later")
    await _held(service)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    _, held, reply = service.echo.held[0]
    await until(lambda: held.cancelled)
    reply.finish(b"")
    await service.ended("QuickDirect", "DEADLINE_EXCEEDED")


async def test_direct_calls_need_permits_too(serve: Serve) -> None:
    service = await serve(max_calls=1)
    call = service.unary("Direct", "later")
    await _held(service)
    error = await service.refused("Direct", "one more")
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    service.echo.held[0][2].finish(b"")
    await call
    assert await service.say("Direct", "again") == "again, from another thread"
