"""Gateway: the directory and Envoy, started together and ended in order. Stage: gateway.

services ─► directory ─► routes (a file) ─► Envoy ◄─ callers
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import signal
import tempfile
import time
from pathlib import Path

from ortmesh.config import MAX_SOCKET_PATH, GatewaySettings
from ortmesh.telemetry import Telemetry
from ortmesh_gateway.addresses import Address, by_family, claim, resolve
from ortmesh_gateway.admin import Admin, AdminError
from ortmesh_gateway.binary import EnvoyMissing, find_envoy
from ortmesh_gateway.directory import Directory
from ortmesh_gateway.envoy import bootstrap, watched
from ortmesh_gateway.files import RouteFile, write_atomically
from ortmesh_gateway.mesh import Replica
from ortmesh_gateway.process import EnvoyFailed, EnvoyProcess, arguments
from ortmesh_gateway.publisher import Publisher

log = logging.getLogger(__name__)

FAILED_GRACE_SECONDS = 0.1
"""For what has begun while a start failed."""
ASK_AGAIN_SECONDS = 0.05
ALL_REPLICAS_SECONDS = 10.0
"""How long the start waits for the last replica of a family when others are there."""
DIRECTORY_SOCKET = "directory.sock"
"""Of the names in the runtime folder the longest."""


class NotStarted(RuntimeError):
    """Why the gateway can't start."""


class Gateway:
    """One gateway: `start`, then `stop`; `failed` tells when it can't go on.

    EnvoyMissing, or OSError for a runtime folder that can't be had, when it is created.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        envoy = find_envoy(settings.envoy)
        self._settings = settings
        self._backends = by_family(settings.backends)
        self._listen = Address.parse(settings.address)
        self._folder = _runtime_folder(settings.runtime)
        self._bootstrap = self._folder / "envoy.json"
        self._admin = Admin(self._folder / "admin.sock")
        self._process = EnvoyProcess(
            envoy,
            arguments(self._bootstrap, workers=settings.workers, drain_seconds=settings.grace_seconds),
            self._admin,
        )
        self._telemetry = Telemetry(settings.telemetry, "ortmesh-gateway")
        self._directory_address = Address(path=str(self._folder / DIRECTORY_SOCKET))
        replicas = [Replica(family, each) for family, addresses in self._backends.items() for each in addresses]
        self.directory = Directory(replicas, self._directory_address, self._telemetry)
        self.routes = RouteFile(self._folder / "routes.json", self._admin)
        self._publisher = Publisher(self.directory.mesh, self.routes, self._backends)
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def address(self) -> str:
        """Where callers connect: `host:port` or `unix:/path`; the actual port after `start`."""
        return str(self._listen)

    @property
    def envoy_pid(self) -> int | None:
        """Of the Envoy that runs; None while there is none."""
        return self._process.pid

    async def start(self) -> None:
        """Returns once calls are taken. OSError when an address is taken, EnvoyFailed with what Envoy said."""
        try:
            self._listen = await resolve(self._listen)
            claim(self._listen)
            port = self._telemetry.serve_prometheus(self._settings.telemetry.metrics_port)
            if port is not None:
                log.info("metrics on http://%s:%d/metrics", self._settings.telemetry.metrics_host, port)
            await self.directory.start()
            self._publisher.write()
            self._write_bootstrap()
            await self._process.start()
            await self._keep_port()
        except BaseException:
            await self._end(FAILED_GRACE_SECONDS)
            raise
        self._tasks = [
            asyncio.create_task(self._publisher.run(), name="routes"),
            *(asyncio.create_task(self._until_routed(family), name=f"reach {family}") for family in self._backends),
        ]

    async def stop(self) -> None:
        """Health says NOT_SERVING for `drain_seconds`, calls then have `grace_seconds`, then all ends."""
        self.directory.health.drain()
        await asyncio.sleep(self._settings.drain_seconds)
        await self._end(self._settings.grace_seconds)

    async def settled(self) -> None:
        """Returns once the routes follow from all that the mesh knows of its models."""
        await self._publisher.settled()

    async def failed(self) -> None:
        """Returns never, or raises what ended a task that must go on: a bug."""
        running = {*self.directory.tasks, *self._process.tasks, *self._tasks}
        while True:
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()

    async def _end(self, grace_seconds: float) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # Together: the directory ends the watches of callers, for which Envoy would else wait.
        await asyncio.gather(self.directory.stop(grace_seconds), self._process.stop(grace_seconds))
        await asyncio.to_thread(self._telemetry.shutdown)
        if self._settings.runtime is None:
            shutil.rmtree(self._folder)

    def _write_bootstrap(self) -> None:
        made = bootstrap(
            self._settings,
            listen=self._listen,
            directory=self._directory_address,
            admin=self._folder / "admin.sock",
            routes=watched(self.routes.path),
        )
        write_atomically(self._bootstrap, json.dumps(made, indent=1))

    async def _keep_port(self) -> None:
        """An Envoy that is started anew must listen where the first one did."""
        if not self._listen.path and self._listen.port == 0:
            self._listen = Address(host=self._listen.host, port=await self._admin.listening_port())
            self._write_bootstrap()

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


async def run(settings: GatewaySettings) -> None:
    """Serves until SIGTERM or SIGINT. NotStarted before that; later only what is a bug."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    gateway = await _started(settings)
    log.info("the gateway listens on %s", gateway.address)
    waiting = [asyncio.create_task(stop.wait()), asyncio.create_task(gateway.failed())]
    try:
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in waiting:
            task.cancel()
        log.info("the gateway is draining")
        await gateway.stop()


async def _started(settings: GatewaySettings) -> Gateway:
    try:
        gateway = Gateway(settings)
        await gateway.start()
    except (OSError, EnvoyMissing, EnvoyFailed, AdminError) as error:
        raise NotStarted(str(error)) from error
    return gateway


def _runtime_folder(chosen: Path | None) -> Path:
    """The folder, made where it is not there. OSError when it can't be, or is too deep for sockets."""
    folder = (chosen or Path(tempfile.mkdtemp(prefix="om-gateway-"))).absolute()
    room = MAX_SOCKET_PATH - len(f"/{DIRECTORY_SOCKET}")
    if len(os.fsencode(folder)) > room:
        raise OSError(f"{folder}: the folder of the sockets has at most {room} bytes, see ORTMESH_GATEWAY_RUNTIME")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder
