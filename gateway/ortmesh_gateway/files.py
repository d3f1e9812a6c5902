"""RouteFile: the routes on disk, replaced by rename and then read back from Envoy. Stage: gateway."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

from ortmesh_gateway.admin import Admin
from ortmesh_gateway.routes import ROUTES_NAME, discovery_file

APPLY_SECONDS = 5.0
POLL_SECONDS = 0.005
"""Routes are live some 3 ms after the rename; only the counters tell."""


class RoutesRejected(RuntimeError):
    """Envoy refused the new routes and goes on with the old ones."""


class RouteFile:
    """The file that Envoy watches. It sees a rename; a write in place goes unseen."""

    def __init__(self, path: Path, admin: Admin) -> None:
        self.path = path
        self._admin = admin
        self._text = ""

    def write(self, configuration: dict[str, Any]) -> bool:
        """Puts the routes in place; False when they stand there already. Envoy reads them when it starts."""
        text = json.dumps(discovery_file(configuration), indent=1)
        if text == self._text:
            return False
        write_atomically(self.path, text)
        self._text = text
        return True

    async def publish(self, configuration: dict[str, Any]) -> bool:
        """Puts the routes in place and waits until Envoy uses them; False when they stood there already.

        RoutesRejected when Envoy refuses them (the old file is then put back, for an Envoy that starts anew), or does
        not take them within APPLY_SECONDS. AdminError when Envoy is not there: it reads the file when it comes.
        """
        before, old = await self._counters(), self._text
        if not self.write(configuration):
            return False
        try:
            await self._until_taken(before)
        except RoutesRejected:
            write_atomically(self.path, old)
            self._text = old
            raise
        return True

    async def _until_taken(self, before: dict[str, int]) -> None:
        limit = time.monotonic() + APPLY_SECONDS
        while time.monotonic() < limit:
            now = await self._counters()
            if now["update_rejected"] > before["update_rejected"]:
                raise RoutesRejected("Envoy rejects the new routes and keeps the old ones; its log says why")
            if now["update_success"] > before["update_success"]:
                return
            await asyncio.sleep(POLL_SECONDS)
        raise RoutesRejected(f"Envoy did not take the new routes within {APPLY_SECONDS:g} s")

    async def _counters(self) -> dict[str, int]:
        stats = await self._admin.stats(f"http.mesh.rds.{ROUTES_NAME}.")
        return {name: stats.get(name, 0) for name in ("update_rejected", "update_success")}


def write_atomically(path: Path, text: str) -> None:
    """Writes beside the file, then renames over it: a reader sees the old or the new, whole."""
    beside = path.with_suffix(".new")
    beside.write_text(text)
    os.replace(beside, path)
