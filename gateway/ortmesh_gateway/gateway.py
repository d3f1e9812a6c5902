"""Gateway: what Envoy can't do, beside it: the directory, and routes that follow the models. Stage: gateway.

services ─► directory ─► routes (a file) ─► Envoy ◄─ callers

Envoy is another process's (proxy.py): it goes on serving while this one is started anew.
"""

from __future__ import annotations

import asyncio
import logging
import time

from ortmesh.config import GatewaySettings
from ortmesh.telemetry import Telemetry
from ortmesh_gateway.addresses import Address, by_family
from ortmesh_gateway.admin import Admin, AdminError
from ortmesh_gateway.directory import Directory
from ortmesh_gateway.files import RouteFile
from ortmesh_gateway.mesh import Replica
from ortmesh_gateway.publisher import Publisher
from ortmesh_gateway.runtime import Runtime

log = logging.getLogger(__name__)

FAILED_GRACE_SECONDS = 0.1
"""For what has begun while a start failed."""
ASK_AGAIN_SECONDS = 0.05
ALL_REPLICAS_SECONDS = 10.0
"""How long the start waits for the last replica of a family when others are there."""


class Gateway:
    """One gateway: `start`, then `stop`; `failed` tells when it can't go on.

    OSError for a runtime folder that can't be had, when it is created.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._backends = by_family(settings.backends)
        runtime = Runtime(settings.runtime)
        self._admin = Admin(runtime.admin)
        self._telemetry = Telemetry(settings.telemetry, "ortmesh-gateway")
        replicas = [Replica(family, each) for family, addresses in self._backends.items() for each in addresses]
        self.directory = Directory(replicas, Address(path=str(runtime.directory)), self._telemetry)
        self.routes = RouteFile(runtime.routes, self._admin)
        self._publisher = Publisher(self.directory.mesh, self.routes, self._backends)
        self._reaching: list[asyncio.Task[None]] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Returns once the directory answers. OSError when its socket or the port of the metrics is taken."""
        try:
            port = self._telemetry.serve_prometheus(self._settings.telemetry.metrics_port)
            if port is not None:
                log.info("metrics on http://%s:%d/metrics", self._settings.telemetry.metrics_host, port)
            await self.directory.start()
        except BaseException:
            await self._end(FAILED_GRACE_SECONDS)
            raise
        self._reaching = [
            asyncio.create_task(self._until_routed(family), name=f"reach {family}") for family in self._backends
        ]
        self._tasks = [asyncio.create_task(self._publisher.run(), name="routes"), *self._reaching]

    async def stop(self) -> None:
        """Health says NOT_SERVING for `drain_seconds`, then all ends; calls have `grace_seconds`."""
        self.directory.health.drain()
        await asyncio.sleep(self._settings.drain_seconds)
        await self._end(self._settings.grace_seconds)

    async def settled(self) -> None:
        """Returns once the routes follow from all that the mesh knows of its models."""
        await self._publisher.settled()

    async def reached(self) -> None:
        """Returns once Envoy has found replicas of every family in good health."""
        await asyncio.gather(*self._reaching)

    async def failed(self) -> None:
        """Returns never, or raises what ended a task that must go on: a bug."""
        running = {*self.directory.tasks, *self._tasks}
        while True:
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()

    async def _end(self, grace_seconds: float) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.directory.stop(grace_seconds)
        await asyncio.to_thread(self._telemetry.shutdown)

    async def _until_routed(self, family: str) -> None:
        """Until Envoy itself has found the replicas in good health, calls would meet "no healthy upstream".

        All of them, or after a while at least one: the first to die may not be the only one that Envoy knows. Its
        admin can only be asked, so it is asked until then, and never again.
        """
        began, wanted = time.monotonic(), len(self._backends[family])
        while True:
            try:
                healthy = (await self._admin.stats(f"cluster.{family}.")).get("membership_healthy", 0)
                if healthy >= (wanted if time.monotonic() - began < ALL_REPLICAS_SECONDS else 1):
                    break
            except AdminError:
                log.debug("Envoy's admin is not there yet")
            await asyncio.sleep(ASK_AGAIN_SECONDS)
        self.directory.routed(family)
