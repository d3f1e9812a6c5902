"""Front: a service's gRPC server, from its table of methods to its drain. Stage: front."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Protocol

from ortmesh.errors import Cancelled, Draining, OrtmeshError
from ortmesh.front.address import Adapter, choose_adapter, claim, is_private
from ortmesh.front.dispatch import Dispatcher
from ortmesh.front.health import Health
from ortmesh.front.limits import FrontLimits
from ortmesh.front.methods import Method
from ortmesh.front.observer import Telemetry
from ortmesh.front.pool import Pool

log = logging.getLogger("ortmesh.front")

LAST_ANSWERS_SECONDS = 0.1
"""Between the last answer and the close of the connections: the native server's close has no grace of its own."""
SHUTTING_DOWN = "the service is shutting down"
STOP_SECONDS = 1.0
"""How long calls may take to end once they were told to."""


class Server(Protocol):
    """What an adapter is: bytes in, bytes out, on one address."""

    address: str
    """Where it listens; complete once started."""

    async def start(self) -> None:
        """Binds and serves. OSError when the address can't be had."""

    def fail_rest(self, why: OrtmeshError) -> None:
        """Answers calls that run outside the loop with an error."""

    async def stop(self) -> None:
        """Closes the connections."""


class Front:
    """Serves a table of methods, and health, on one address."""

    def __init__(
        self,
        methods: Sequence[Method],
        *,
        target: str,
        adapter: Adapter = "auto",
        health: Health,
        telemetry: Telemetry,
        limits: FrontLimits,
        reflection: bool = False,
        trusts_caller: bool | None = None,
    ) -> None:
        """`target` is `host:port` (port 0: any free one) or `unix:/path`.

        `trusts_caller`: whether the gateway's headers about the caller are believed; None: where only this
        machine can connect. Reflection is served by the grpcio adapter alone.
        """
        self.health = health
        self.limits = limits
        self.pool = Pool(limits.pool_threads, limits.pool_max_bytes)
        self.adapter = choose_adapter(adapter, target)
        self._dispatcher = Dispatcher(
            [*methods, *health.methods()],
            pool=self.pool,
            telemetry=telemetry,
            limits=limits,
            trusts_caller=is_private(target) if trusts_caller is None else trusts_caller,
        )
        self._server = _server(self.adapter, target, self._dispatcher, limits, reflection)
        self._target = target

    @property
    def address(self) -> str:
        """The address that callers connect to: `host:port` or `unix:/path`. Complete once started."""
        return self._server.address

    async def start(self) -> None:
        """Serves from now on. OSError when the address is in use."""
        try:
            claim(self._target)
            await self._server.start()
        except BaseException:
            await asyncio.to_thread(self.pool.close)
            raise
        log.info("listening on %s (%s)", self.address, self.adapter)

    async def drain(self, grace_seconds: float) -> None:
        """Stops serving without losing a call.

        Health says NOT_SERVING while calls are still taken for `limits.drain_seconds`; then new ones are refused
        with UNAVAILABLE and those that run have `grace_seconds` to end; what still runs then is cancelled.
        """
        self.health.drain()
        await asyncio.sleep(self.limits.drain_seconds)
        idle = self._close_admission()
        self._dispatcher.stop_running(Draining(SHUTTING_DOWN), lambda method: method.watch)
        if not await _within(idle, grace_seconds):
            log.warning("%d calls did not end within %g s", self._dispatcher.admission.in_flight(), grace_seconds)
            await self._stop_rest(idle)
        await asyncio.sleep(LAST_ANSWERS_SECONDS)
        await self._server.stop()
        await asyncio.to_thread(self.pool.close)

    def _close_admission(self) -> asyncio.Event:
        loop, idle = asyncio.get_running_loop(), asyncio.Event()

        def on_idle() -> None:
            loop.call_soon_threadsafe(idle.set)

        self._dispatcher.admission.close(on_idle)
        return idle

    async def _stop_rest(self, idle: asyncio.Event) -> None:
        # A stream of requests nobody but its caller can repeat, and that knows what it has heard: it goes elsewhere.
        self._dispatcher.stop_running(Draining(SHUTTING_DOWN), lambda method: method.takes_stream)
        # Not UNAVAILABLE: these calls have begun, and UNAVAILABLE promises that a retry repeats nothing.
        why = Cancelled("the service stopped before the call was done")
        self._dispatcher.stop_running(why, lambda method: not method.takes_stream)
        self._server.fail_rest(why)
        await _within(idle, STOP_SECONDS)


def _server(adapter: str, target: str, dispatcher: Dispatcher, limits: FrontLimits, reflection: bool) -> Server:
    if adapter == "grpcio":
        from ortmesh.front.grpcio import GrpcioAdapter

        services = {route.method.path.split("/")[1] for route in dispatcher.routes}
        return GrpcioAdapter(target, dispatcher, limits, dispatcher.routes, sorted(services) if reflection else ())
    from ortmesh.front.native import NativeAdapter

    if reflection:
        log.debug("reflection is not served by the native adapter: ask the gateway")
    return NativeAdapter(target, dispatcher, limits)


async def _within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
