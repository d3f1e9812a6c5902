"""Publisher: the routes follow the mesh's models, whatever happens to Envoy and the disk meanwhile. Stage: gateway."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from contextlib import suppress
from typing import Any

from ortmesh_gateway.admin import AdminError
from ortmesh_gateway.files import RouteFile, RoutesRejected
from ortmesh_gateway.mesh import Mesh
from ortmesh_gateway.routes import route_configuration

log = logging.getLogger(__name__)

FIRST_DELAY_SECONDS = 0.1
LONGEST_DELAY_SECONDS = 10.0


class Publisher:
    """Puts the routes of the mesh's models in place, and tells the mesh which models Envoy has a route for."""

    def __init__(self, mesh: Mesh, routes: RouteFile, families: Collection[str]) -> None:
        self._mesh = mesh
        self._routes = routes
        self._families = families
        self._before = routes.models()
        """The routes of an earlier gateway, by which Envoy may be serving: a family's count until it tells."""
        self._published = False
        self._changed = asyncio.Event()
        self._settled = asyncio.Event()

    async def settled(self) -> None:
        """Returns once the routes follow from all that the mesh knows of its models."""
        await self._settled.wait()

    async def run(self) -> None:
        """Until it is cancelled. What could not be published is tried again, after a delay or with the next change."""
        unsubscribe = self._mesh.watch(self._unsettle)
        self._unsettle()
        delay = FIRST_DELAY_SECONDS
        try:
            while True:
                await self._changed.wait()
                self._changed.clear()
                if await self._publish():
                    delay = FIRST_DELAY_SECONDS
                    if not self._changed.is_set():
                        self._settled.set()
                else:
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._changed.wait(), delay)
                    self._changed.set()
                    delay = min(2 * delay, LONGEST_DELAY_SECONDS)
        finally:
            unsubscribe()

    async def _publish(self) -> bool:
        """True when Envoy uses the routes of all models."""
        models, names = self._models(), self._mesh.names()
        configuration = route_configuration(models, self._families)
        try:
            if await self._routes.publish(configuration) and models:
                log.info("routes to %d models are live", len(models))
        except AdminError as error:
            level = logging.WARNING if self._published else logging.DEBUG  # it starts as we do
            log.log(level, "Envoy is not there to take the new routes, it reads them when it starts: %s", error)
            self._keep_for_later(configuration)
            return False
        except (RoutesRejected, OSError) as error:
            log.error("the new routes are not live: %s", error)
            return False
        self._published = True
        self._mesh.routed(names)
        return True

    def _keep_for_later(self, configuration: dict[str, Any]) -> None:
        try:
            self._routes.write(configuration)
        except OSError as error:
            log.error("the new routes can't be written: %s", error)

    def _models(self) -> dict[str, str]:
        """What is routed: each model's name and its family."""
        untold = {family for family in self._families if not self._mesh.has_told(family)}
        before = {name: family for name, family in self._before.items() if family in untold}
        return before | self._mesh.clusters()

    def _unsettle(self) -> None:
        self._settled.clear()
        self._changed.set()
