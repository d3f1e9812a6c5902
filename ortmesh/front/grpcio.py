"""The grpcio adapter: `grpc.aio` serving the table through generic handlers. Stage: front.

For every port that strangers can reach, and where the native adapter's wheel is missing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, NoReturn

import grpc
import grpc.aio
from grpc_reflection.v1alpha import reflection, reflection_pb2

from ortmesh import descriptors
from ortmesh.errors import Cancelled, MalformedMessage, OrtmeshError, ReaderStalled
from ortmesh.front.address import why_not
from ortmesh.front.dispatch import Dispatcher, Metadata
from ortmesh.front.exchange import Exchange, Route
from ortmesh.front.hush import hush
from ortmesh.front.intake import Intake
from ortmesh.front.limits import MAX_METADATA_BYTES, FrontLimits
from ortmesh.front.status import Failure

log = logging.getLogger("ortmesh.front")

Context = grpc.aio.ServicerContext[bytes, bytes]

CODES = {code.value[0]: code for code in grpc.StatusCode}
MAX_PENDING = 4096
"""Calls that wait for the loop; some 10 KB each."""
MAX_WAITING = 10_000
"""Calls that the event loop has not seen yet; more are answered CANCELLED by gRPC itself."""
CLOSE_SECONDS = 1.0
"""Grace for what still runs when the server closes: answers that are being written."""


class GrpcioAdapter:
    """A `grpc.aio` server on one address. Lives on one event loop."""

    def __init__(self, target: str, dispatcher: Dispatcher, limits: FrontLimits, reflected: Sequence[str] = ()) -> None:
        self.address = target
        """Where it listens, with the actual port once started."""
        self._dispatcher = dispatcher
        self._stall_seconds = limits.stall_seconds
        self._intake = Intake(limits.max_slow_bytes)
        self._reflected = reflected
        self._largest = max((route.method.max_request_bytes for route in dispatcher.routes), default=0)
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        """Binds and serves. OSError when the address can't be had."""
        hush()
        server = grpc.aio.server(options=self._options())
        server.add_generic_rpc_handlers([_Table({r.method.path: self._handler(r) for r in self._dispatcher.routes})])
        if self._reflected:
            server.add_generic_rpc_handlers([_reflection(self._reflected)])
        try:
            port = server.add_insecure_port(self.address)
        except RuntimeError:  # it does not say why
            raise why_not(self.address) from None
        if not self.address.startswith("unix:"):
            self.address = f"{self.address.rpartition(':')[0]}:{port}"
        await server.start()
        self._server = server

    async def stop(self) -> None:
        """Closes all connections; calls that still run are cancelled."""
        if self._server is not None:
            await self._server.stop(CLOSE_SECONDS)

    def fail_rest(self, why: OrtmeshError) -> None:
        """Nothing runs outside the loop here: the dispatcher has ended every call."""

    def _options(self) -> list[tuple[str, Any]]:
        return [
            # Each method's own limit is checked by the dispatcher; this one is what may be buffered at all.
            ("grpc.max_receive_message_length", self._largest),
            ("grpc.max_send_message_length", -1),
            # Between the two gRPC would refuse calls by chance; its own are 8 and 16 KiB, the gateway's bound 16.
            ("grpc.max_metadata_size", MAX_METADATA_BYTES),
            ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
            # Else a second server on the port would silently share it.
            ("grpc.so_reuseport", 0),
            ("grpc.max_concurrent_streams", 1024),
            # What waits to be taken up; above 1,000 gRPC's default answers CANCELLED by chance. A call waits in 10 KiB.
            ("grpc.server.max_pending_requests", MAX_WAITING),
            ("grpc.server.max_pending_requests_hard_limit", MAX_WAITING),
            # Of calls that wait for the loop gRPC drops, beyond the one by chance and beyond the other always, without
            # a word: callers see CANCELLED. Its own 1,000 and 3,000 are too few to say OVERLOADED ourselves.
            ("grpc.server.max_pending_requests", MAX_PENDING),
            ("grpc.server.max_pending_requests_hard_limit", 2 * MAX_PENDING),
            # Clients that ping every 10 s are kept, instead of being sent away as too eager.
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            ("grpc.keepalive_permit_without_calls", 1),
        ]

    def _handler(self, route: Route) -> grpc.RpcMethodHandler[bytes, bytes]:
        """All methods take one message. To gRPC they take a stream: of a unary call that ends without its message
        it tells nobody, and the call would hang."""
        if route.method.streams:
            return grpc.stream_stream_rpc_method_handler(self._stream(route))
        return grpc.stream_unary_rpc_method_handler(self._unary(route))

    def _unary(self, route: Route) -> Callable[[Any, Context], Awaitable[bytes]]:
        async def serve(_: object, context: Context) -> bytes:
            exchange = await self._admitted(route, context)
            with _ended(exchange):
                outcome = await self._dispatcher.unary(exchange)
            if isinstance(outcome, bytes):
                exchange.end("OK", len(outcome))
                return outcome
            await _abort(context, exchange, outcome)

        return serve

    def _stream(self, route: Route) -> Callable[[Any, Context], Awaitable[None]]:
        async def serve(_: object, context: Context) -> None:
            exchange = await self._admitted(route, context)
            writer = _Writer(context, self._stall_seconds)
            with _ended(exchange):
                outcome = await self._dispatcher.stream(exchange, writer.send)
            if isinstance(outcome, int):
                exchange.end("OK", outcome)
            else:
                await _abort(context, exchange, outcome, writer)

        return serve

    async def _admitted(self, route: Route, context: Context) -> Exchange:
        metadata: Metadata = dict(context.invocation_metadata() or ())
        try:
            payload = await self._intake.take(_message(context), route.method.max_request_bytes)
            call = self._dispatcher.admit(route, len(payload), metadata, context.time_remaining())
        except OrtmeshError as error:
            await _send(context, Failure.of(error))
        exchange = Exchange(route, call, len(payload))
        exchange.payload = payload
        return exchange


def _reflection(services: Sequence[str]) -> grpc.GenericRpcHandler:
    """Server reflection under both its names. The library has v1alpha only; v1's messages are the same bytes."""
    servicer = reflection.aio.ReflectionServicer([*services, *descriptors.REFLECTION_SERVICES], pool=descriptors.pool())
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    return _Table({f"/{service}/ServerReflectionInfo": handler for service in descriptors.REFLECTION_SERVICES})


class _Table(grpc.GenericRpcHandler):
    """The table of methods as grpcio asks for it; None makes UNIMPLEMENTED."""

    def __init__(self, handlers: dict[str, Any]) -> None:
        self._handlers = handlers

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        """The handler of a path."""
        return self._handlers.get(details.method)


@contextlib.contextmanager
def _ended(exchange: Exchange) -> Iterator[None]:
    """Ends the exchange when its caller leaves in the middle."""
    try:
        yield
    except asyncio.CancelledError:
        exchange.end_unheard()
        raise


async def _message(context: Context) -> bytes:
    """The call's message; what may follow it is not read. MalformedMessage when there is none."""
    payload = await context.read()
    if isinstance(payload, bytes):
        return payload
    raise MalformedMessage("the call ended before its message was complete")


class _Writer:
    """Sends a stream's messages one by one, each as long as its reader has patience for."""

    def __init__(self, context: Context, stall_seconds: float) -> None:
        self._context = context
        self._stall_seconds = stall_seconds
        self._last: asyncio.Task[bool] | None = None

    async def send(self, message: bytes) -> None:
        """Sends one message and waits for a slow reader. ReaderStalled when it takes nothing, Cancelled when it left.

        What is being written can't be taken back, only left: it goes on as a task of its own.
        """
        self._last = asyncio.create_task(self._write(message))
        done, _ = await asyncio.wait((self._last,), timeout=self._stall_seconds)
        if not done:
            raise ReaderStalled(f"no message was taken for {self._stall_seconds:g} s")
        if not self._last.result():
            raise Cancelled("the caller left")

    async def idle(self) -> None:
        """Returns once nothing is being written any more: gRPC takes no status before."""
        if self._last is not None:
            await asyncio.wait((self._last,))

    async def _write(self, message: bytes) -> bool:
        """False when nobody reads any more."""
        try:
            await self._context.write(message)
        except grpc.aio.BaseError:
            return False
        return True


async def _abort(context: Context, exchange: Exchange, failure: Failure, writer: _Writer | None = None) -> NoReturn:
    """Ends a call with a status. Its leases go back at once, its permit when the status was taken.

    `grpc.aio` can't reset a stream: one whose reader stalls stays until the reader goes. Were its permit free,
    such streams would pile up without a bound.
    """
    exchange.call.end()
    try:
        if writer is not None:
            await writer.idle()
        await _send(context, failure)
    finally:
        exchange.end(failure.name)


async def _send(context: Context, failure: Failure) -> NoReturn:
    try:
        await context.abort(CODES[failure.code], failure.message, tuple(failure.trailers))
    except grpc.aio.InternalError:
        log.debug("nobody waits for the status %s any more", failure.name)
    # As gRPC itself ends a call whose caller left; whatever else is raised here it would log.
    raise asyncio.CancelledError
