"""The grpcio adapter: `grpc.aio` serving the table through generic handlers. Stage: front.

For every port that strangers can reach, and where the native adapter's wheel is missing.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, NoReturn

import grpc
import grpc.aio
from grpc_reflection.v1alpha import reflection, reflection_pb2

from ortmesh import descriptors
from ortmesh.errors import OrtmeshError, ReaderStalled
from ortmesh.front.dispatch import Dispatcher, Metadata
from ortmesh.front.exchange import Exchange, Route
from ortmesh.front.limits import FrontLimits
from ortmesh.front.status import Failure

Context = grpc.aio.ServicerContext[bytes, bytes]

CODES = {code.value[0]: code for code in grpc.StatusCode}
CLOSE_SECONDS = 1.0
"""Grace for what still runs when the server closes: answers that are being written."""


class GrpcioAdapter:
    """A `grpc.aio` server on one address. Lives on one event loop."""

    def __init__(self, target: str, dispatcher: Dispatcher, limits: FrontLimits, reflected: Sequence[str] = ()) -> None:
        self.address = target
        """Where it listens, with the actual port once started."""
        self._dispatcher = dispatcher
        self._stall_seconds = limits.stall_seconds
        self._reflected = reflected
        self._largest = max((route.method.max_request_bytes for route in dispatcher.routes), default=0)
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        """Binds and serves. OSError when the address can't be had."""
        server = grpc.aio.server(options=self._options())
        server.add_generic_rpc_handlers([_Table({r.method.path: self._handler(r) for r in self._dispatcher.routes})])
        if self._reflected:
            server.add_generic_rpc_handlers([_reflection(self._reflected)])
        try:
            port = server.add_insecure_port(self.address)
        except RuntimeError as error:
            raise OSError(errno.EADDRINUSE, f"cannot listen on {self.address}: {error}") from None
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
            # Else a second server on the port would silently share it.
            ("grpc.so_reuseport", 0),
            ("grpc.max_concurrent_streams", 1024),
            # Clients that ping every 10 s are kept, instead of being sent away as too eager.
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            ("grpc.keepalive_permit_without_calls", 1),
        ]

    def _handler(self, route: Route) -> grpc.RpcMethodHandler[bytes, bytes]:
        if route.method.streams:
            return grpc.unary_stream_rpc_method_handler(self._stream(route))
        return grpc.unary_unary_rpc_method_handler(self._unary(route))

    def _unary(self, route: Route) -> Callable[[bytes, Context], Awaitable[bytes]]:
        async def serve(payload: bytes, context: Context) -> bytes:
            exchange = await self._admitted(route, payload, context)
            del payload  # the exchange holds it until it is decoded
            with _ended(exchange):
                outcome = await self._dispatcher.unary(exchange)
            if isinstance(outcome, bytes):
                exchange.end("OK", len(outcome))
                return outcome
            await _abort(context, exchange, outcome)

        return serve

    def _stream(self, route: Route) -> Callable[[bytes, Context], Awaitable[None]]:
        async def serve(payload: bytes, context: Context) -> None:
            exchange = await self._admitted(route, payload, context)
            del payload

            async def send(message: bytes) -> None:
                try:
                    async with asyncio.timeout(self._stall_seconds):
                        await context.write(message)
                except TimeoutError:
                    raise ReaderStalled(f"no message was taken for {self._stall_seconds:g} s") from None

            with _ended(exchange):
                outcome = await self._dispatcher.stream(exchange, send)
            if isinstance(outcome, int):
                exchange.end("OK", outcome)
            else:
                await _abort(context, exchange, outcome)

        return serve

    async def _admitted(self, route: Route, payload: bytes, context: Context) -> Exchange:
        metadata: Metadata = dict(context.invocation_metadata() or ())
        try:
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


async def _abort(context: Context, exchange: Exchange, failure: Failure) -> NoReturn:
    """Ends a call with a status. Its leases go back at once, its permit when the status was taken.

    `grpc.aio` can't reset a stream: one whose reader stalls stays until the reader goes. Were its permit free,
    such streams would pile up without a bound.
    """
    exchange.call.end()
    try:
        await _send(context, failure)
    finally:
        exchange.end(failure.name)


async def _send(context: Context, failure: Failure) -> NoReturn:
    await context.abort(CODES[failure.code], failure.message, tuple(failure.trailers))
