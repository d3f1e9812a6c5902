"""Streams from the caller: order, limits, patience, and every way in which such a call may end."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2

from tests.front.conftest import DEADLINE_SECONDS, HANG_SECONDS, Serve, Service, until
from tests.front.echo import MESSAGE_BYTES, PATIENCE_SECONDS, SERVICE
from tests.front.test_calls import detail, status_of

CALLERS_TRANSPORT = [("grpc.http2.bdp_probe", 0), ("grpc.use_local_subchannel_pool", 1)]


async def _read_all(call: Any) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


async def _refused(call: Any) -> grpc.aio.AioRpcError:
    """Reads to the error with which a stream ends."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _read_all(call)
    return caught.value


def _reason(error: grpc.aio.AioRpcError) -> str:
    return str(detail(error, error_details_pb2.ErrorInfo).reason)


async def _say(call: Any, text: str) -> str:
    """One message there and one back."""
    await call.write(text)
    return str(await call.read())


async def test_both_ways_messages_flow_at_once_and_a_half_close_ends_them(service: Service) -> None:
    call = service.chat()
    for number in range(100):
        assert await _say(call, str(number)) == str(number)
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK
    await service.ended("Chat", "OK")
    assert service.echo.left == ["heard all"]
    assert service.recorder.request_bytes["Chat"] == 10 * 3 + 90 * 4


async def test_the_synchronous_library_streams_both_ways(service: Service) -> None:
    def call() -> list[bytes]:
        with grpc.insecure_channel(service.front.address) as channel:
            chat: Any = channel.stream_stream(f"/{SERVICE}/Chat")
            return list(chat(iter([b"\n\x01a", b"\n\x01b"]), timeout=HANG_SECONDS))

    assert await asyncio.to_thread(call) == [b"\n\x01a", b"\n\x01b"]


async def test_a_stream_may_be_empty(service: Service) -> None:
    call = service.chat()
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await service.gather() == ""


async def test_a_stream_may_have_one_answer(service: Service) -> None:
    assert await service.gather("a", "stream", "of", "words") == "a stream of words"
    await service.ended("Gather", "OK")


async def test_each_message_has_its_limits_and_those_after_a_wrong_one_are_read(service: Service) -> None:
    """A handler may answer for one message and go on; gRPC's own limit, that of the largest method, ends the call."""
    sent: list[str | bytes] = ["x" * 997, "x" * 998, b"\xff\xff", b"\n\x02\xc3(", "all"]
    expected = ["x" * 997, "MESSAGE_TOO_LARGE", "MALFORMED_MESSAGE", "INVALID_FIELD", "all"]
    assert await service.gather(*sent) == " ".join(expected)


@pytest.mark.parametrize(
    ("message", "code", "reason"),
    [
        (b"\xff\xff\xff", grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_MESSAGE"),
        ("x" * MESSAGE_BYTES, grpc.StatusCode.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE"),
        ("bad", grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD"),
    ],
)
async def test_a_wrong_message_in_the_middle_ends_the_stream_with_its_details(
    service: Service, message: Any, code: grpc.StatusCode, reason: str
) -> None:
    call = service.chat()
    assert await _say(call, "good") == "good"
    await call.write(message)
    error = await _refused(call)
    assert (error.code(), _reason(error)) == (code, reason)
    await service.ended("Chat", code.name)


async def test_a_message_over_every_limit_ends_the_stream(service: Service) -> None:
    call = service.chat()
    assert await _say(call, "good") == "good"
    await call.write("x" * (5 << 20))
    assert (await _refused(call)).code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_compressed_message_is_measured_unpacked(service: Service) -> None:
    call = service.chat(compression=grpc.Compression.Gzip)
    assert len(await _say(call, "x" * (MESSAGE_BYTES - 100))) == MESSAGE_BYTES - 100
    await call.write("x" * MESSAGE_BYTES)
    assert (await _refused(call)).code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_bug_in_the_middle_reaches_the_log_but_not_the_caller(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    call = service.chat()
    await call.write("bug")
    with caplog.at_level(logging.ERROR):
        error = await _refused(call)
    assert (error.code(), error.details()) == (grpc.StatusCode.INTERNAL, "internal error")
    assert "secret" in caplog.text


async def test_the_service_may_end_a_stream_whose_caller_has_more_to_say(service: Service) -> None:
    call = service.chat()
    await call.write("bye")
    assert await call.read() == "bye"
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK
    await service.ended("Chat", "OK")


async def test_a_caller_that_leaves_is_never_taken_for_one_that_has_said_all(service: Service) -> None:
    """gRPC tells of both in the same way. Where an answer was just being sent the handler's generator is closed."""

    async def come_and_leave() -> None:
        call = service.chat()
        assert await _say(call, "hello") == "hello"
        call.cancel()

    for _ in range(5):
        await asyncio.gather(*(come_and_leave() for _ in range(60)))
    await service.ended("Chat", "CANCELLED", 300)
    assert len(service.echo.left) == 300
    assert set(service.echo.left) <= {"CancelledError", "GeneratorExit"}
    assert all(call.cancelled for call in service.echo.calls)


async def test_a_caller_that_vanishes_ends_its_stream(service: Service) -> None:
    async with grpc.aio.insecure_channel(service.front.address, options=CALLERS_TRANSPORT) as channel:
        call = service.bare(channel.stream_stream, "Chat")()
        assert await _say(call, "hello") == "hello"
    await service.ended("Chat", "CANCELLED")
    assert service.echo.left == ["CancelledError"]


async def test_what_nobody_reads_holds_its_caller_back(service: Service) -> None:
    """A few MiB lie in sockets and windows; then the caller waits, and nobody else does."""
    async with grpc.aio.insecure_channel(service.front.address, options=CALLERS_TRANSPORT) as channel:
        call = service.bare(channel.stream_stream, "Chat")()
        await call.write("deaf")
        await service.echo.entered.wait()
        written = 0
        while written < 64 << 20:
            writing = asyncio.create_task(call.write("x" * 65536))  # which can't be given up without the call
            await asyncio.wait((writing,), timeout=1)
            if not writing.done():
                break
            written += 65536
        assert written < 8 << 20
        assert await service.gather("others", "are", "heard") == "others are heard"
        assert service.front._dispatcher.admission.stream_bytes == 6, "the message that the handler has"
        call.cancel()
        await asyncio.wait((writing,))
        await service.ended("Chat", "CANCELLED")


async def test_a_reader_that_stalls_is_dropped(serve: Serve) -> None:
    service = await serve(stall_seconds=1.0)
    call = service.chat()
    await call.write("flood")
    await call.read()
    await until(lambda: service.echo.left)
    other = service.chat()
    assert await _say(other, "others go on") == "others go on"
    other.cancel()
    error = await _refused(call)
    assert (error.code(), _reason(error)) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "READER_STALLED")
    await service.ended("Chat", "RESOURCE_EXHAUSTED")


async def test_the_callers_deadline_ends_the_stream(service: Service) -> None:
    call = service.chat(timeout=DEADLINE_SECONDS)
    assert await _say(call, "hello") == "hello"
    assert (await _refused(call)).code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await service.ended("Chat", "DEADLINE_EXCEEDED")
    assert service.echo.left == ["CancelledError"]


async def test_without_a_deadline_the_methods_own_counts(service: Service) -> None:
    call = service.chat("Brief")
    assert await _say(call, "hello") == "hello"
    error = await _refused(call)
    assert (error.code(), _reason(error)) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")


async def test_streams_have_permits(serve: Serve) -> None:
    service = await serve(max_streams=1)
    call = service.chat()
    assert await _say(call, "hello") == "hello"
    for refused in (service.chat(), service.stream("Count", "3")):
        error = await _refused(refused)
        assert (error.code(), _reason(error)) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
        assert detail(error, error_details_pb2.RetryInfo).retry_delay.ToTimedelta().total_seconds() > 0
    assert await service.say("Say", "unary calls have their own") == "unary calls have their own"
    await call.done_writing()
    await call.read()
    await service.ended("Chat", "OK")
    assert await service.gather("free", "again") == "free again"


async def test_messages_that_handlers_hold_are_bounded(serve: Serve) -> None:
    """Unary calls make room for streams, not streams for unary calls: a talk of an hour is not ended by a picture."""
    service = await serve(max_bytes=100_000)
    held = service.chat()
    await held.write("deaf")
    await service.echo.entered.wait()
    large = service.unary("Hold", "x" * 99_900)
    await until(lambda: len(service.echo.calls) == 2)
    assert await service.gather("x" * 990) == "x" * 990, "though unary calls have filled the room"
    assert (await service.refused("Hold", "x" * 990)).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    service.echo.release.set()
    await large
    first, second = service.chat(), service.chat()
    service.echo.release.clear()
    service.echo.entered.clear()
    await first.write("deaf")
    await service.echo.entered.wait()
    service.front._dispatcher.admission.max_bytes = 500
    assert await _say(second, "small") == "small"
    await second.write("x" * 600)
    error = await _refused(second)
    assert (error.code(), _reason(error)) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
    for call in (held, first):
        call.cancel()
    await service.ended("Chat", "CANCELLED", 2)


async def test_who_calls_and_how_urgently_is_known_to_the_handler(service: Service) -> None:
    call = service.chat(metadata=(("x-ortmesh-caller", "alice"), ("ortmesh-priority", "high"), ("my-key", "kept")))
    assert await _say(call, "hello") == "hello"
    (known,) = service.echo.calls
    assert (known.caller, known.priority, known.metadata["my-key"]) == ("alice", 1, "kept")
    assert known.method == f"/{SERVICE}/Chat"
    call.cancel()
    error = await _refused(service.chat(metadata=(("ortmesh-priority", "highest"),)))
    assert status_of(error).code == grpc.StatusCode.INVALID_ARGUMENT.value[0]


async def test_whoever_gives_up_waiting_for_a_message_loses_none(service: Service) -> None:
    call = service.chat("Patient")
    for number in range(30):
        await call.write(str(number))
        await asyncio.sleep(0.0015 * (number % 3))
    await call.done_writing()
    assert [text async for text in call] == [str(number) for number in range(30)]


async def test_a_stream_that_never_begins_is_ended(service: Service) -> None:
    error = await _refused(service.chat("Patient"))
    assert (error.code(), error.details()) == (
        grpc.StatusCode.DEADLINE_EXCEEDED,
        f"the first message did not come within {PATIENCE_SECONDS:g} s",
    )


async def test_a_stream_without_a_first_message_is_known(service: Service) -> None:
    call = service.chat("Patient")
    await call.done_writing()
    assert [text async for text in call] == ["nothing was said"]


async def test_a_drain_waits_for_streams_that_end(service: Service) -> None:
    call = service.chat()
    assert await _say(call, "hello") == "hello"
    draining = asyncio.create_task(service.drain(grace_seconds=HANG_SECONDS))
    await until(lambda: service.front._dispatcher.admission.max_streams == 0)
    assert _reason(await _refused(service.chat())) == "DRAINING"
    assert await _say(call, "still here") == "still here"
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK
    await draining


async def test_a_stream_that_goes_on_is_sent_elsewhere_after_the_grace(service: Service) -> None:
    call = service.chat()
    assert await _say(call, "hello") == "hello"
    async with asyncio.timeout(HANG_SECONDS):
        await service.drain(grace_seconds=0.2)
    error = await _refused(call)
    assert (error.code(), _reason(error)) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
    assert service.echo.left == ["CancelledError"]
