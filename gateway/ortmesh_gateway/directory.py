"""Directory: what a proxy can't answer, served beside Envoy on a Unix socket of its own. Stage: gateway.

ModelService over all services, the Open Inference Protocol's server and repository calls and its unknown names, the
mesh's health, reflection. It is never in the path of a call that a model answers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Any, NoReturn

from ortmesh import descriptors
from ortmesh.errors import Unimplemented
from ortmesh.front.call import Call
from ortmesh.front.health import Health
from ortmesh.front.limits import FrontLimits
from ortmesh.front.methods import Method, bind, private
from ortmesh.front.observer import Telemetry
from ortmesh.front.server import Front
from ortmesh.models.v1 import models_pb2
from ortmesh_gateway import model_service, oip
from ortmesh_gateway.addresses import Address
from ortmesh_gateway.follow import follow
from ortmesh_gateway.mesh import Mesh, Replica
from ortmesh_gateway.methods import services

log = logging.getLogger(__name__)

LIMITS = FrontLimits(drain_seconds=0.0, pool_threads=1)
"""The gateway has waited itself. Who calls later, on a connection that Envoy still drains, is told to go elsewhere."""
STARTED = "startup"
"""The health name of a gateway that may be called: every family is found, or one, and the others were waited for."""
STARTUP_SECONDS = 10.0


class Directory:
    """Follows the replicas, and answers for all of them: `start`, then `stop`."""

    def __init__(self, replicas: Iterable[Replica], address: Address, telemetry: Telemetry) -> None:
        self._replicas = tuple(replicas)
        self.mesh = Mesh(self._replicas)
        self.health = Health()
        elsewhere = [row for family in self.mesh.families for row in _elsewhere(family)]
        self._front = Front(
            [*model_service.methods(self.mesh), *oip.methods(self.mesh, self.health), *elsewhere],
            target=str(address),
            adapter="grpcio",  # which serves reflection
            health=self.health,
            telemetry=telemetry,
            limits=LIMITS,
            reflection=True,
        )
        self._known: set[str] = set()
        self._routed: set[str] = set()
        self._started = self._waited = False
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Listens at once; models come as their services tell of them. OSError when the socket is taken."""
        self._tell_health()
        self.mesh.watch(self._tell_health)
        await self._front.start()
        self._tasks = [
            *(asyncio.create_task(follow(replica, self.mesh), name=f"follow {replica}") for replica in self._replicas),
            asyncio.create_task(self._wait(), name="startup"),
        ]

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        """What must run as long as the gateway does."""
        return self._tasks

    async def stop(self, grace_seconds: float) -> None:
        """Stops following and serving."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._front.drain(grace_seconds)

    def routed(self, family: str) -> None:
        """Envoy has found a family's replica in good health: from now on its service counts as the replicas say."""
        self._routed.add(family)
        self._tell_health()

    def _tell_health(self) -> None:
        """The mesh serves when every family does; a family when Envoy and we reach a replica with a model ready."""
        ready = {family: family in self._routed and self.mesh.ready(family) for family in self.mesh.families}
        self.health.set("", bool(ready) and all(ready.values()))
        self._started = self._started or (bool(ready) and (any if self._waited else all)(ready.values()))
        self.health.set(STARTED, self._started)
        self.health.set(model_service.SERVICE, True)
        self.health.set(descriptors.OIP_SERVICE, any(ready.values()))
        for family, serving in ready.items():
            for service in services(family):
                self.health.set(service, serving)
        self._tell_models()

    async def _wait(self) -> None:
        await asyncio.sleep(STARTUP_SECONDS)
        self._waited = True
        self._tell_health()

    def _tell_models(self) -> None:
        names = self.mesh.names()
        for gone in self._known - set(names):
            self.health.remove(f"models/{gone}")
        for name in names:
            self.health.set(f"models/{name}", self.mesh.find(name).state == models_pb2.MODEL_STATE_READY)
        self._known = set(names)


def _elsewhere(family: str) -> list[Method]:
    """Rows of a family's methods, so that reflection tells of them; their calls never come here."""

    def refuse(request: Any, call: Call) -> NoReturn:  # no coroutine: of a stream it would be none either
        raise Unimplemented(f"the {family} service answers {call.method}: call it through the gateway")

    return [
        row
        for service in services(family)
        for row in bind(service, dict.fromkeys(descriptors.service(service).methods_by_name, refuse), messages=private)
    ]
