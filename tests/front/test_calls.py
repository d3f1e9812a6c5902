"""One call at a time: what its caller sees, on both adapters."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from tests.front.conftest import DEADLINE_SECONDS, HANG_SECONDS, Serve, Service, until
from tests.front.echo import SERVICE
from tests.wire import framed, post


def status_of(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    """The google.rpc.Status in the trailers, as grpcio-status reads it."""
    details = dict(error.trailing_metadata() or ())["grpc-status-details-bin"]
    status = status_pb2.Status.FromString(details)
    assert (status.code, status.message) == (error.code().value[0], error.details())
    return status


def detail(error: grpc.aio.AioRpcError, kind: Any) -> Any:
    """The one detail of a kind."""
    found = [packed for packed in status_of(error).details if packed.Is(kind.DESCRIPTOR)]
    assert len(found) == 1
    message = kind()
    found[0].Unpack(message)
    return message


async def test_a_call_is_answered(service: Service) -> None:
    assert await service.say("Say", "hello") == "hello"
    await service.ended("Say", "OK")


@pytest.mark.parametrize("form", ["tcp", "ipv6", "localhost", "unix"])
async def test_every_form_of_address_is_served(serve: Serve, sockets: Path, form: str) -> None:
    target = {"tcp": "127.0.0.1:0", "ipv6": "[::1]:0", "localhost": "localhost:0", "unix": f"unix:{sockets}/s"}[form]
    service = await serve(target)
    assert not service.front.address.endswith(":0")
    assert await service.say("Say", "hello") == "hello"


async def test_an_error_names_the_field_that_was_wrong(service: Service) -> None:
    error = await service.refused("Say", "bad")
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    (violation,) = detail(error, error_details_pb2.BadRequest).field_violations
    assert (violation.field, violation.description) == ("value", "must not be bad")
    info = detail(error, error_details_pb2.ErrorInfo)
    assert (info.reason, info.domain) == ("INVALID_FIELD", "ortmesh")


async def test_grpcio_status_reads_the_details(service: Service) -> None:
    """The synchronous library that Python callers use, in a thread of its own."""

    def call() -> status_pb2.Status | None:
        with grpc.insecure_channel(service.front.address) as channel:
            say: Any = channel.unary_unary(f"/{SERVICE}/Say")
            with pytest.raises(grpc.RpcError) as caught:
                say(b"\n\x03bad")
        return rpc_status.from_call(caught.value)

    status = await asyncio.to_thread(call)
    assert status is not None
    assert status.code == code_pb2.INVALID_ARGUMENT
    assert len(status.details) == 2


async def test_a_bug_reaches_the_log_but_not_the_caller(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        error = await service.refused("Say", "bug")
    assert error.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in f"{error.details()}{error.trailing_metadata()}"
    assert "secret" in caplog.text
    await service.ended("Say", "INTERNAL")


async def test_bytes_that_are_no_message_are_refused(service: Service) -> None:
    raw: Any = service.channel.unary_unary(f"/{SERVICE}/Say")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await raw(b"\xff\xff\xff")
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert detail(caught.value, error_details_pb2.ErrorInfo).reason == "MALFORMED_MESSAGE"
    assert service.echo.calls == []


async def test_a_message_over_the_methods_limit_is_refused_unread(service: Service) -> None:
    error = await service.refused("Say", "x" * 1000)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert detail(error, error_details_pb2.ErrorInfo).reason == "MESSAGE_TOO_LARGE"
    assert service.echo.calls == []
    await service.ended("Say", "RESOURCE_EXHAUSTED")


async def test_a_message_over_every_limit_is_refused(service: Service) -> None:
    """5 MiB where no method takes more than 4: grpcio itself refuses it, the native adapter once it has it."""
    error = await service.refused("Hold", "x" * (5 << 20))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_compressed_message_is_measured_unpacked(service: Service) -> None:
    assert await service.say("Say", "x" * 900, compression=grpc.Compression.Gzip) == "x" * 900
    error = await service.refused("Say", "x" * 5000, compression=grpc.Compression.Gzip)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_an_unknown_method_is_unimplemented(service: Service) -> None:
    error = await service.refused("Sing", "hello")
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_path_that_is_no_text_harms_nobody(service: Service) -> None:
    """It ends a server of grpc.aio for good from 1.84 on."""
    heard = await asyncio.to_thread(post, service.front.address, b"/a/\xff\xfe", framed(b""))
    assert heard.code is None or heard.code in (
        grpc.StatusCode.INTERNAL.value[0],
        grpc.StatusCode.UNIMPLEMENTED.value[0],
    )
    assert "codec" not in heard.message
    assert await service.say("Say", "hello") == "hello"


async def test_the_callers_deadline_ends_a_call(service: Service) -> None:
    error = await service.refused("Hold", "late", timeout=DEADLINE_SECONDS)
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await service.ended("Hold", "DEADLINE_EXCEEDED")
    assert service.echo.ended == ["late"]


async def test_the_methods_default_deadline_ends_a_call(service: Service) -> None:
    error = await service.refused("Quick", "late")
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert detail(error, error_details_pb2.ErrorInfo).reason == "DEADLINE_EXCEEDED"
    await until(lambda: service.echo.ended == ["late"])


async def test_a_caller_may_wait_longer_than_the_default(service: Service) -> None:
    call = service.unary("Quick", "patient", timeout=HANG_SECONDS)
    await service.echo.entered.wait()
    await asyncio.sleep(0.4)  # past the default of 0.3 s
    service.echo.release.set()
    assert (await call).value == "patient"


async def test_a_caller_that_leaves_cancels_its_call(service: Service) -> None:
    call = service.unary("Hold", "gone")
    await service.echo.entered.wait()
    call.cancel()
    await service.ended("Hold", "CANCELLED")
    assert [held.cancelled for held in service.echo.calls] == [True]
    assert service.echo.ended == ["gone"]


async def test_the_pool_runs_a_calls_functions(service: Service) -> None:
    assert (await service.say("Say", "pool")).startswith("ortmesh-pool-")


async def test_the_gateways_word_about_the_caller_counts_on_a_private_address(service: Service) -> None:
    await service.unary("Say", "hello", metadata=(("x-ortmesh-caller", "alice"),))
    assert [call.caller for call in service.echo.calls] == ["alice"]


@pytest.mark.parametrize(("written", "meant"), [("low", -1), ("normal", 0), ("high", 1), (None, 0)])
async def test_a_call_says_how_urgent_it_is(service: Service, written: str | None, meant: int) -> None:
    metadata = () if written is None else (("ortmesh-priority", written),)
    await service.unary("Say", "hello", metadata=metadata)
    assert [call.priority for call in service.echo.calls] == [meant]


@pytest.mark.parametrize("written", ["", "urgent", "HIGH", "1", "high,high", "x" * 1000])
async def test_an_unknown_urgency_is_refused_with_what_is_expected(service: Service, written: str) -> None:
    error = await service.refused("Say", "x", metadata=(("ortmesh-priority", written),))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    (violation,) = detail(error, error_details_pb2.BadRequest).field_violations
    assert violation.field == "ortmesh-priority"
    assert "low, normal, high" in violation.description


@pytest.mark.parametrize("written", ["", "-1S", "12", "9999999999S", "1x", "0n", "1u", "99999999H"])
async def test_a_strange_timeout_harms_nobody(service: Service, written: str) -> None:
    """Whatever a caller writes into grpc-timeout: its call ends, and the next one is answered."""
    heard = await asyncio.to_thread(
        post, service.front.address, f"/{SERVICE}/Say", framed(b"\n\x02hi"), [("grpc-timeout", written)]
    )
    assert heard.code is not None
    assert await service.say("Say", "still here") == "still here"


@pytest.mark.parametrize("method", ["Say", "Count"])
@pytest.mark.parametrize("body", [b"", b"\0\0", framed(b"\n\x02hi", length=100)], ids=["none", "two bytes", "cut"])
async def test_a_call_that_ends_without_its_message_is_answered(
    service: Service, adapter: str, method: str, body: bytes
) -> None:
    """The native server's library answers itself; grpcio's would leave the call hanging."""
    heard = await asyncio.to_thread(post, service.front.address, f"/{SERVICE}/{method}", body)
    expected = grpc.StatusCode.INTERNAL if adapter == "native" else grpc.StatusCode.INVALID_ARGUMENT
    assert heard.code == expected.value[0]
    assert not service.echo.calls
