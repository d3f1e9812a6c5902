"""Proxy: Envoy with its configuration, kept alive and ended with grace. Stage: gateway.

A process of its own: `python -m ortmesh_gateway.proxy --listen 127.0.0.1:8080 --backend vision=unix:/run/v.sock`, with
the backends and the runtime folder of the gateway beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging

from ortmesh.config import GatewaySettings
from ortmesh_gateway.addresses import Address, by_family, claim, resolve
from ortmesh_gateway.admin import Admin
from ortmesh_gateway.binary import find_envoy
from ortmesh_gateway.command import main
from ortmesh_gateway.envoy import bootstrap, watched
from ortmesh_gateway.files import write_atomically, write_first
from ortmesh_gateway.process import EnvoyProcess, arguments
from ortmesh_gateway.routes import route_configuration
from ortmesh_gateway.runtime import Runtime

log = logging.getLogger("ortmesh_gateway.proxy")


class Proxy:
    """One Envoy: `start`, then `stop`; `failed` tells when it can't go on.

    EnvoyMissing, or OSError for a runtime folder that can't be had, when it is created.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._listen = Address.parse(settings.address)
        self._runtime = Runtime(settings.runtime)
        self._admin = Admin(self._runtime.admin)
        self._process = EnvoyProcess(
            find_envoy(settings.envoy),
            arguments(self._runtime.bootstrap, workers=settings.workers, drain_seconds=settings.grace_seconds),
            self._admin,
        )

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
        self._listen = await resolve(self._listen)
        claim(self._listen)
        claim(Address(path=str(self._runtime.admin)))
        # Those that a gateway has put there know more: its models.
        write_first(self._runtime.routes, route_configuration({}, by_family(self._settings.backends)))
        self._write_bootstrap()
        await self._process.start()
        try:
            await self._keep_port()
        except BaseException:
            await self._process.stop(0)
            raise
        log.info("the gateway listens on %s", self.address)

    async def stop(self) -> None:
        """Serves for `drain_seconds` in which health says NOT_SERVING, gives calls `grace_seconds`, ends Envoy."""
        await asyncio.sleep(self._settings.drain_seconds)
        await self._process.stop(self._settings.grace_seconds)
        self._runtime.admin.unlink(missing_ok=True)  # Envoy leaves it

    async def failed(self) -> None:
        """Returns never, or raises what ended the supervision: a bug."""
        await asyncio.gather(*self._process.tasks)

    def _write_bootstrap(self) -> None:
        made = bootstrap(
            self._settings,
            listen=self._listen,
            directory=Address(path=str(self._runtime.directory)),
            admin=self._runtime.admin,
            routes=watched(self._runtime.routes),
        )
        write_atomically(self._runtime.bootstrap, json.dumps(made, indent=1))

    async def _keep_port(self) -> None:
        """An Envoy that is started anew must listen where the first one did."""
        if not self._listen.path and self._listen.port == 0:
            self._listen = Address(host=self._listen.host, port=await self._admin.listening_port())
            self._write_bootstrap()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ortmesh_gateway.proxy",
        description="Keeps Envoy before the mesh's services. Every setting is also a variable.",
    )
    parser.add_argument("--listen", dest="address", metavar="ADDRESS", help="HOST:PORT or unix:/path")
    parser.add_argument("--workers", type=int, metavar="N", help="Envoy's threads")
    parser.add_argument("--access-log", action="store_true", default=None, help="one JSON line a call on stdout")
    return parser


if __name__ == "__main__":
    main("proxy", _parser(), Proxy)
