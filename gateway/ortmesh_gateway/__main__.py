"""The command line: `python -m ortmesh_gateway --listen 127.0.0.1:8080 --backend vision=unix:/run/v.sock`."""

from __future__ import annotations

import argparse
import asyncio
import logging
from typing import Any

from ortmesh.config import MISTAKES, GatewaySettings, in_words
from ortmesh.telemetry import configure_logging
from ortmesh_gateway.gateway import NotStarted, run

log = logging.getLogger("ortmesh_gateway")


def main() -> None:
    """Serves until SIGTERM or SIGINT. Exits 1 with the reason when it can't start, or can't go on."""
    settings = _settings()
    configure_logging(settings.telemetry.log_json, settings.telemetry.log_level, service="ortmesh-gateway")
    try:
        asyncio.run(run(settings))
    except NotStarted as error:
        log.critical("the gateway can't start: %s", error)
        raise SystemExit(1) from None
    except Exception:
        log.critical("the gateway can't go on", exc_info=True)
        raise SystemExit(1) from None


def _settings() -> GatewaySettings:
    parser = argparse.ArgumentParser(
        prog="python -m ortmesh_gateway",
        description="Routes the mesh's calls. Every setting is also an environment variable.",
    )
    parser.add_argument("--listen", dest="address", metavar="ADDRESS", help="HOST:PORT or unix:/path")
    parser.add_argument(
        "--backend", dest="backends", action="append", metavar="FAMILY=ADDRESS", help="a service; may be repeated"
    )
    parser.add_argument("--workers", type=int, metavar="N", help="Envoy's threads")
    parser.add_argument("--access-log", action="store_true", default=None, help="one JSON line a call on stdout")
    given: dict[str, Any] = {name: value for name, value in vars(parser.parse_args()).items() if value is not None}
    try:
        return GatewaySettings(**given)
    except MISTAKES as mistake:
        parser.error(in_words(mistake))


if __name__ == "__main__":
    main()
