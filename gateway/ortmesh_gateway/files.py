"""RouteFile: the routes on disk, replaced by rename and then read back from Envoy. Stage: gateway."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import time
from pathlib import Path
from typing import Any

from ortmesh_gateway.admin import Admin
from ortmesh_gateway.routes import ROUTES_NAME, discovery_file, routed_models

log = logging.getLogger(__name__)

APPLY_SECONDS = 5.0
POLL_SECONDS = 0.005
"""Routes are live some 3 ms after the rename; only Envoy's statistics tell."""
REJECTED, VERSION = "update_rejected", "version_text"
"""What Envoy counts and tells of its routes."""


class RoutesRejected(RuntimeError):
    """Envoy refused the new routes and goes on with the old ones."""


class RouteFile:
    """The file that Envoy watches. It sees a rename; a write in place goes unseen."""

    def __init__(self, path: Path, admin: Admin) -> None:
        self.path = path
        self._admin = admin
        self._version = ""

    def models(self) -> dict[str, str]:
        """The models that the file has routes for, and where these lead; none when there is no file of ours."""
        try:
            hosts = json.loads(self.path.read_text())["resources"][0]["virtual_hosts"]
            return routed_models(hosts[0]["routes"])
        except (OSError, ValueError, LookupError, TypeError):
            return {}

    def write(self, configuration: dict[str, Any]) -> bool:
        """Puts the routes in place; False when they stand there already. Envoy reads them when it starts."""
        version = version_of(configuration)
        if version == self._version and self.path.exists():
            return False
        write_atomically(self.path, _text(configuration))
        self._version = version
        return True

    async def publish(self, configuration: dict[str, Any]) -> bool:
        """Puts the routes in place and waits until Envoy uses them; False when it does already.

        RoutesRejected when Envoy refuses them or does not take them within APPLY_SECONDS: the old file is then put
        back, for an Envoy that starts anew. AdminError when Envoy is not there; OSError when the file can't be written.
        """
        before = await self._stats()
        old_version, old_text = self._version, self._text()
        if not self.write(configuration) and before.get(VERSION) == self._version:
            return False
        try:
            await self._until_taken(before.get(REJECTED, 0))
        except RoutesRejected:
            if old_text:
                write_atomically(self.path, old_text)
            self._version = old_version
            raise
        return True

    def _text(self) -> str:
        """The file as it is; empty when somebody has removed it."""
        try:
            return self.path.read_text()
        except FileNotFoundError:
            return ""

    async def _until_taken(self, rejected: int) -> None:
        limit = time.monotonic() + APPLY_SECONDS
        while time.monotonic() < limit:
            now = await self._stats()
            if now.get(VERSION) == self._version:
                return
            if now.get(REJECTED, 0) > rejected:
                raise RoutesRejected("Envoy rejects the new routes and keeps the old ones; its log says why")
            await asyncio.sleep(POLL_SECONDS)
        raise RoutesRejected(f"Envoy did not take the new routes within {APPLY_SECONDS:g} s")

    async def _stats(self) -> dict[str, Any]:
        return await self._admin.stats(f"http.mesh.rds.{ROUTES_NAME}.")


def _text(configuration: dict[str, Any]) -> str:
    return json.dumps(discovery_file(configuration, version_of(configuration)), indent=1)


def version_of(configuration: dict[str, Any]) -> str:
    """What Envoy reports as the version of routes that it uses."""
    return hashlib.sha256(json.dumps(configuration).encode()).hexdigest()[:16]


def write_first(path: Path, configuration: dict[str, Any]) -> None:
    """Puts routes in place unless some stand there, however close another process is at doing so."""
    if path.exists():  # also on a disk without room
        return
    beside = path.with_suffix(".first")
    beside.write_text(_text(configuration))
    try:
        os.link(beside, path)
    except FileExistsError:
        log.debug("%s is there", path)
    finally:
        beside.unlink()


def write_atomically(path: Path, text: str) -> None:
    """Writes beside the file, then renames over it: a reader sees the old or the new, whole."""
    beside = path.with_suffix(".new")
    beside.write_text(text)
    os.replace(beside, path)
