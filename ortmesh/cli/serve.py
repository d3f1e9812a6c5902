"""`ortmesh serve`: one family's service, alone, in the foreground. Stage: command line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from ortmesh.cli.console import fail
from ortmesh.cli.failures import settings
from ortmesh.cli.plan import FAMILIES, module
from ortmesh.config import Family, ServiceSettings, TelemetrySettings


def serve(
    family: Annotated[str, typer.Argument(help="vision, speech or nlp.")],
    port: Annotated[int | None, typer.Option(help="Listen on 127.0.0.1:PORT; 0 picks a free port.")] = None,
    listen: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Listen on HOST:PORT or unix:/path.")] = None,
    models: Annotated[Path | None, typer.Option(help="The store's folder.")] = None,
    only: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Serve this model; may be repeated.")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of a model's computation.")] = None,
    metrics_port: Annotated[int | None, typer.Option(help="Prometheus endpoint; 0 picks a free port.")] = None,
) -> None:
    """Run one family's service, without a gateway, until Ctrl-C.

    It is what a container runs; `ortmesh up` starts all families and the gateway before them.

    \b
    [bold]Examples[/bold]
      ortmesh serve nlp --port 9001
      ortmesh serve vision --listen unix:/run/ortmesh/vision.sock --only efficientnet-lite0
    """
    if family not in FAMILIES:
        fail(f"{family!r} is no family: they are {', '.join(FAMILIES)}")
    if port is not None and listen is not None:
        fail("give --port or --listen, not both")
    address = listen if port is None else f"127.0.0.1:{port}"
    _check(family, metrics_port, {"address": address, "store": models, "only": only, "threads": threads})
    given = {"--listen": address, "--models": models, "--threads": threads, "--metrics-port": metrics_port}
    arguments = [word for name, value in given.items() if value is not None for word in (name, str(value))]
    become(module(f"ortmesh_{family}", *arguments, *(["--only", *only] if only else [])))


def _check(family: str, metrics_port: int | None, given: dict[str, Any]) -> None:
    """Ends with exit code 1 for what the service would refuse: the mistake is this command's, not `python -m`'s."""
    chosen = {name: value for name, value in given.items() if value is not None}
    if metrics_port is not None:
        chosen["telemetry"] = settings(lambda: TelemetrySettings(metrics_port=metrics_port))
    settings(lambda: ServiceSettings(family=cast(Family, family), **chosen))


def become(command: tuple[str, ...]) -> None:
    """Replaces this process: signals and the exit code are the service's own."""
    os.execv(command[0], command)
