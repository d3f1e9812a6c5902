"""The grpcio adapter: `grpc.aio` serving the table through generic handlers. Stage: front.

For every port that strangers can reach, and where the native adapter's wheel is missing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Any, NoReturn

import grpc
import grpc.aio

from ortmesh.errors import OrtmeshError
from ortmesh.front import reflection
from ortmesh.front.address import why_not
from ortmesh.front.dispatch import Dispatcher
from ortmesh.front.exchange import Exchange, Route
from ortmesh.front.grpcio_context import Context, Writer, message, metadata, next_message, send
from ortmesh.front.hush import hush
from ortmesh.front.intake import Intake
from ortmesh.front.limits import MAX_METADATA_BYTES, FrontLimits
from ortmesh.front.requests import Requests
from ortmesh.front.status import Failure

MAX_PENDING = 4096
"""Calls that wait for the loop; some 10 KB each."""
ACKNOWLEDGED_MILLISECONDS = 5000
"""How long a new connection may take to acknowledge our settings: a round trip, of a caller that is short of CPUs."""
CLOSE_SECONDS = 1.0
"""Grace for what still runs when the server closes: answers that are being written."""


class GrpcioAdapter:
    """A `grpc.aio` server on one address. Lives on one event loop."""

    def __init__(
        self,
        target: str,
        dispatcher: Dispatcher,
        limits: FrontLimits,
        routes: Sequence[Route],
        reflected: Sequence[str] = (),
    ) -> None:
        self.address = target
        """Where it listens, with the actual port once started."""
        self._dispatcher = dispatcher
        self._stall_seconds = limits.stall_seconds
        self._intake = Intake(limits.max_slow_bytes)
        self._routes = routes
        self._reflected = reflected
        self._largest = max((route.method.max_request_bytes for route in routes), default=0)
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        """Binds and serves. OSError when the address can't be had."""
        hush()
        server = grpc.aio.server(options=self._options())
        handlers = {route.method.path: self._handler(route) for route in self._routes}
        if self._reflected:
            handlers |= reflection.handlers(self._reflected)
        server.add_generic_rpc_handlers([_Table(handlers)])
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
            # Of calls that wait for the loop gRPC drops, beyond the one by chance and beyond the other always, without
            # a word: callers see CANCELLED. Its own 1,000 and 3,000 are too few to say OVERLOADED ourselves.
            ("grpc.server.max_pending_requests", MAX_PENDING),
            ("grpc.server.max_pending_requests_hard_limit", 2 * MAX_PENDING),
            # Until a caller acknowledges our settings, gRPC bounds neither its metadata nor its streams by them.
            ("grpc.http2.settings_timeout", ACKNOWLEDGED_MILLISECONDS),
            # Else gRPC takes in 3 to 4 MiB of a stream that nobody reads; so it is 64 KiB, or an awaited message.
            ("grpc.http2.bdp_probe", 0),
            # Clients that ping every 10 s are kept, instead of being sent away as too eager.
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            ("grpc.keepalive_permit_without_calls", 1),
        ]

    def _handler(self, route: Route) -> grpc.RpcMethodHandler[bytes, bytes]:
        """To gRPC all methods take a stream: of a unary call that ends without its message it tells nobody, and the
        call would hang."""
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
            writer = Writer(context, self._stall_seconds)
            with _ended(exchange):
                outcome = await self._dispatcher.stream(exchange, writer.send)
            if isinstance(outcome, int):
                exchange.end("OK", outcome)
            else:
                await _abort(context, exchange, outcome, writer)

        return serve

    async def _admitted(self, route: Route, context: Context) -> Exchange:
        try:
            sent, payload = metadata(context), b""
            await self._dispatcher.entry.turn(self._dispatcher.caller(sent))
            if not route.method.takes_stream:
                payload = await self._intake.take(message(context), route.method.max_request_bytes)
            call = self._dispatcher.admit(route, len(payload), sent, context.time_remaining())
        except OrtmeshError as error:
            await send(context, Failure.of(error))
        exchange = Exchange(route, call, len(payload))
        exchange.payload = payload
        if route.method.takes_stream:
            exchange.requests = Requests(route, partial(next_message, context), self._dispatcher.admission)
            call.on_end(exchange.requests.close)
        return exchange


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


async def _abort(context: Context, exchange: Exchange, failure: Failure, writer: Writer | None = None) -> NoReturn:
    """Ends a call with a status. Its leases go back at once, its permit when the status was taken.

    `grpc.aio` can't reset a stream: one whose reader stalls stays until the reader goes. Were its permit free,
    such streams would pile up without a bound.
    """
    exchange.call.end()
    try:
        if writer is not None:
            await writer.idle()
        await send(context, failure)
    finally:
        exchange.end(failure.name)
