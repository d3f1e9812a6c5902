"""The native adapter: pygrpc-native's low-level server, whose HTTP/2 runs outside the interpreter lock. Stage: front.

    receive thread ──► direct handlers, callers in turns ──► executors' threads ──► answer     (no coroutine)
          └──────────► coroutines, a batch of calls in one wake-up of the loop ──► answer

Methods that take a stream from the caller are served by a grpcio adapter, to which the server passes their calls on as
they come. For addresses to which only the gateway or this machine can connect; docs/adapters.md lists how it differs.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from functools import partial
from typing import Any

from pygrpc_native import EVENT_CALL, STREAM_FULL, STREAM_SENT, NativeGrpcFront

from ortmesh.errors import Cancelled, OrtmeshError, ReaderStalled
from ortmesh.front.dispatch import Dispatcher
from ortmesh.front.exchange import Route
from ortmesh.front.limits import MAX_METADATA_BYTES, FrontLimits
from ortmesh.front.native_exchange import NativeExchange
from ortmesh.front.native_streams import NativeStreams
from ortmesh.front.status import Failure
from ortmesh.front.turns import AT_ONCE, Turns

log = logging.getLogger("ortmesh.front")

BATCH = 64
"""Events that the receive thread takes at once."""
DIRECT_BYTES = 512 * 1024
"""Larger messages are parsed on the loop, whatever their handlers."""
IO_THREADS = 1
"""One thread of HTTP/2 carries over 50,000 calls a second, more than the interpreter."""
FIRST_PAUSE_SECONDS = 0.001
LONGEST_PAUSE_SECONDS = 0.005
"""Nothing tells when a stream takes its next message, so a full one is tried again after 1 to 5 ms."""

Details = tuple[tuple[tuple[str, str | bytes], ...], str, float | None]
"""Of a call: its metadata, its peer, and the seconds to the deadline that its caller set."""
Start = tuple[NativeExchange, bool]
"""For the loop: a call, and whether its caller has left."""
Direct = tuple[NativeExchange, bool]
"""A call for a direct handler, and whether its caller set a deadline."""


class NativeAdapter:
    """A NativeGrpcFront on one address, its receive thread, and the tasks of its coroutines' calls."""

    def __init__(self, target: str, dispatcher: Dispatcher, limits: FrontLimits) -> None:
        self.address = target
        """Where it listens, with the actual port once started."""
        self._dispatcher = dispatcher
        self._routes = [route for route in dispatcher.routes if not route.method.takes_stream]
        self._streams = NativeStreams(dispatcher, limits)
        self._stall_seconds = limits.stall_seconds
        self._live: dict[int, NativeExchange] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._next_expiry = math.inf
        self._direct: Turns[Direct] = Turns()
        """What waits for its direct handler; of the receive thread alone."""
        self._front: NativeGrpcFront
        self._loop: asyncio.AbstractEventLoop
        self._thread = threading.Thread(target=self._receive, name="ortmesh-receive", daemon=True)

    async def start(self) -> None:
        """Binds and serves. OSError when the address can't be had."""
        self._loop = asyncio.get_running_loop()
        self._front = NativeGrpcFront(
            self.address,
            [(route.method.path, route.method.streams) for route in self._routes],
            io_threads=IO_THREADS,
            call_details=True,
            max_metadata_size=MAX_METADATA_BYTES,
            # Else a stream that fails at once could not carry its status in the headers.
            delay_stream_headers=True,
        )
        if not self.address.startswith("unix:"):
            self.address = f"{self.address.rpartition(':')[0]}:{self._front.bound_port}"
        await self._streams.start(self._front)
        self._front.start()
        self._thread.start()

    def fail_rest(self, why: OrtmeshError) -> None:
        """Answers the calls of direct handlers with an error; their executors' answers come too late."""
        for exchange in list(self._live.values()):
            if not exchange.on_loop:
                exchange.call.cancel()
                exchange.fail(why)

    async def stop(self) -> None:
        """Closes all connections at once; whatever still runs is cancelled."""
        await self._streams.stop()
        await asyncio.to_thread(self._front.close)
        await asyncio.to_thread(self._thread.join)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # The receive thread

    def _receive(self) -> None:
        """Takes what came in until the server closes; does not wait for more while direct handlers' calls wait."""
        while self._take(self._front.recv_batch_details(BATCH, 0 if self._direct else self._wait_ms())):
            pass

    def _take(self, events: list[Any] | None) -> bool:
        """Begins or cancels a batch's calls; False once the server is closed.

        A function of its own, so that nothing holds the last batch's messages while the next one is awaited.
        """
        if events is None:
            return False
        starts: list[Start] = []
        for kind, number, index, payload, _, details in events:
            try:
                if kind == EVENT_CALL:
                    self._begin(number, self._routes[index], payload, details, starts)
                else:
                    self._leave(number, starts)
            except BaseException as error:
                self._recover(number, error)
        self._begin_directly(starts)
        if self._next_expiry != math.inf:
            self._expire()
        return not starts or self._wake_loop(starts)

    def _begin(self, number: int, route: Route, payload: bytes, details: Details, starts: list[Start]) -> None:
        metadata, _, timeout = details
        try:
            call = self._dispatcher.admit(route, len(payload), dict(metadata), timeout)
        except OrtmeshError as error:
            self._refuse(number, error)
            return
        exchange = NativeExchange(route, call, len(payload), number, self._front, self._live)
        exchange.payload = payload
        if route.method.direct is None or len(payload) > DIRECT_BYTES:
            exchange.on_loop = True
            starts.append((exchange, False))
        else:
            self._direct.append(call.caller, (exchange, timeout is not None))

    def _begin_directly(self, starts: list[Start]) -> None:
        """Has direct handlers take a few of their calls, callers in turns: whoever comes beside another's burst waits
        for these few alone."""
        for _ in range(AT_ONCE):
            if not self._direct:
                return
            exchange, watched = self._direct.next()
            try:
                if exchange.call.cancelled:
                    exchange.give_up()
                elif not self._handle(exchange, watched):
                    exchange.on_loop = True
                    starts.append((exchange, False))
            except OrtmeshError as error:
                exchange.fail(error)
            except BaseException as error:
                self._recover(exchange.number, error)

    def _handle(self, exchange: NativeExchange, watched: bool) -> bool:
        """True when the direct handler took the call. `watched` is True where the caller set a deadline: over those
        the server itself watches."""
        direct, call = exchange.route.method.direct, exchange.call
        assert direct is not None
        request = exchange.take_request()
        if not direct(request, call, exchange):
            exchange.request = request
            return False
        if not watched and call.deadline < self._next_expiry:
            self._next_expiry = call.deadline
        return True

    def _leave(self, number: int, starts: list[Start]) -> None:
        exchange = self._live.get(number)
        if exchange is not None:
            exchange.call.cancel()
            if exchange.on_loop:
                starts.append((exchange, True))

    def _recover(self, number: int, error: BaseException) -> None:
        """One call's bug must not end the thread that serves all, nor a panic of a library, which is no `Exception`."""
        exchange = self._live.get(number)
        if exchange is not None:
            exchange.fail(error)
        else:
            log.error("a call failed before it was admitted", exc_info=error)
            self._refuse(number, error)

    def _refuse(self, number: int, error: BaseException) -> None:
        failure = Failure.of(error)
        self._front.fail(number, failure.code, failure.message, failure.trailers)

    def _wake_loop(self, starts: list[Start]) -> bool:
        try:
            self._loop.call_soon_threadsafe(self._start, starts)
        except RuntimeError:
            log.error("the event loop was closed before the front was drained")
            self._front.close()
            return False
        return True

    def _wait_ms(self) -> int | None:
        """How long to wait for events: until the next default deadline of a direct call."""
        if self._next_expiry == math.inf:
            return None
        return max(1, math.ceil((self._next_expiry - time.monotonic()) * 1000))

    def _expire(self) -> None:
        """Ends direct calls that are past their method's default deadline, once the earliest may be."""
        now = time.monotonic()
        if now < self._next_expiry:
            return
        self._next_expiry = math.inf
        for exchange in list(self._live.values()):
            if exchange.on_loop or exchange.call.cancelled:
                continue
            if exchange.call.deadline <= now:
                exchange.expire()
            else:
                self._next_expiry = min(self._next_expiry, exchange.call.deadline)

    # The loop

    def _start(self, starts: list[Start]) -> None:
        for exchange, left in starts:
            if left:
                exchange.cancel()
                continue
            task = self._loop.create_task(self._serve(exchange))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, exchange: NativeExchange) -> None:
        """Runs one coroutine's call and answers it."""
        outcome: bytes | int | Failure
        try:
            await self._dispatcher.entry.turn(exchange.call.caller)
            if exchange.route.method.streams:
                outcome = await self._dispatcher.stream(exchange, partial(self._send, exchange.number))
            else:
                outcome = await self._dispatcher.unary(exchange)
        except asyncio.CancelledError:
            exchange.give_up()
            return  # raised on, it would stay with its task, which its frames hold: the request until a collection
        if isinstance(outcome, Failure):
            exchange.fail_with(outcome)
        elif isinstance(outcome, bytes):
            exchange.finish(outcome)
        else:
            exchange.finish_stream(outcome)

    async def _send(self, number: int, message: bytes) -> None:
        """Sends one message of a stream; waits for its reader, but not for ever."""
        sent = self._front.stream_try_send(number, message)
        if sent == STREAM_SENT:
            return
        pause, patience = FIRST_PAUSE_SECONDS, time.monotonic() + self._stall_seconds
        while sent == STREAM_FULL:
            if time.monotonic() >= patience:
                raise ReaderStalled(f"no message was taken for {self._stall_seconds:g} s")
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            sent = self._front.stream_try_send(number, message)
        if sent != STREAM_SENT:
            raise Cancelled("the caller left")
