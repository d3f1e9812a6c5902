"""Admin: Envoy's administration over its Unix socket. Stage: gateway."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
from pathlib import Path
from typing import Any

ANSWER_SECONDS = 5.0


class AdminError(RuntimeError):
    """Envoy's admin did not answer, or not with 200."""


class Admin:
    """Asks one Envoy. Every method raises AdminError when it does not answer."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def ready(self) -> bool:
        """True once Envoy serves; False while it starts, drains or is gone."""
        try:
            return (await self._ask("GET", "/ready")).strip() == "LIVE"
        except AdminError:
            return False

    async def stats(self, prefix: str) -> dict[str, Any]:
        """Counters, gauges and texts whose names begin with `prefix`, the prefix cut off."""
        answer = await self._ask("GET", f"/stats?format=json&filter=^{prefix.replace('.', '%5C.')}")
        found: list[dict[str, Any]] = json.loads(answer)["stats"]
        return {stat["name"].removeprefix(prefix): stat["value"] for stat in found if "value" in stat}

    async def listening_port(self) -> int:
        """The port of the listener; 0 when it is a Unix socket."""
        answer = json.loads(await self._ask("GET", "/listeners?format=json"))
        address = answer["listener_statuses"][0]["local_address"]
        return int(address.get("socket_address", {}).get("port_value", 0))

    async def drain(self) -> None:
        """Tells callers by GOAWAY to go elsewhere; calls in flight go on."""
        await self._ask("POST", "/healthcheck/fail")
        await self._ask("POST", "/drain_listeners?graceful&skip_exit")

    async def _ask(self, method: str, path: str) -> str:
        return await asyncio.to_thread(_ask, self._path, method, path)


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("admin", timeout=ANSWER_SECONDS)
        self._socket_path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._socket_path))


def _ask(socket_path: Path, method: str, path: str) -> str:
    connection = _Connection(socket_path)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        text = answer.read().decode()
    except (OSError, http.client.HTTPException) as error:
        raise AdminError(f"{method} {path}: {error}") from error
    finally:
        connection.close()
    if answer.status != http.client.OK:
        raise AdminError(f"{method} {path}: {answer.status} {text.strip()}")
    return text
