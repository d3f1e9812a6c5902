"""The command line that the gateway's two processes share, and how a process serves and ends. Stage: gateway."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
from collections.abc import Callable
from typing import Any, Protocol

from ortmesh.config import MISTAKES, GatewaySettings, in_words
from ortmesh.telemetry import configure_logging
from ortmesh_gateway.admin import AdminError
from ortmesh_gateway.binary import EnvoyMissing
from ortmesh_gateway.process import EnvoyFailed

log = logging.getLogger("ortmesh_gateway")


class Server(Protocol):
    """What a process serves."""

    async def start(self) -> None:
        """Returns once it serves."""

    async def stop(self) -> None:
        """Drains and ends."""

    async def failed(self) -> None:
        """Returns never, or raises what ended it: a bug."""


class NotStarted(RuntimeError):
    """Why a process can't start."""


def main(name: str, parser: argparse.ArgumentParser, server: Callable[[GatewaySettings], Server]) -> None:
    """Serves until SIGTERM or SIGINT. Exits 1 with the reason when it can't start, or can't go on.

    The parser has the process's own arguments, named as settings.
    """
    settings = _settings(parser)
    configure_logging(settings.telemetry.log_json, settings.telemetry.log_level, service=f"ortmesh-{name}")
    try:
        asyncio.run(_run(settings, server))
    except NotStarted as error:
        log.critical("the %s can't start: %s", name, error)
        raise SystemExit(1) from None
    except Exception:
        log.critical("the %s can't go on", name, exc_info=True)
        raise SystemExit(1) from None


def _settings(parser: argparse.ArgumentParser) -> GatewaySettings:
    parser.add_argument(
        "--backend", dest="backends", action="append", metavar="FAMILY=ADDRESS", help="a service; may be repeated"
    )
    given: dict[str, Any] = {name: value for name, value in vars(parser.parse_args()).items() if value is not None}
    try:
        return GatewaySettings(**given)
    except MISTAKES as mistake:
        parser.error(in_words(mistake))


async def _run(settings: GatewaySettings, make: Callable[[GatewaySettings], Server]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = await _started(settings, make)
    waiting = [asyncio.create_task(stop.wait()), asyncio.create_task(server.failed())]
    try:
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in waiting:
            task.cancel()
        log.info("draining")
        await server.stop()


async def _started(settings: GatewaySettings, make: Callable[[GatewaySettings], Server]) -> Server:
    try:
        server = make(settings)
        await server.start()
    except (OSError, EnvoyMissing, EnvoyFailed, AdminError) as error:
        raise NotStarted(str(error)) from error
    return server
