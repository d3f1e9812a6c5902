"""`ortmesh gateway`: the gateway alone, before services that run elsewhere. Stage: command line."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer

from ortmesh.cli.console import fail
from ortmesh.cli.failures import settings
from ortmesh.cli.mesh import Mesh, NotStarted
from ortmesh.cli.plan import BadPlan, make_gateway_plan
from ortmesh.cli.runtime import InUse, claim_port, runtime_folder
from ortmesh.config import GatewaySettings, TelemetrySettings


def gateway(
    backend: Annotated[
        list[str] | None,
        typer.Option(metavar="FAMILY=ADDRESS", help="A service, HOST:PORT or unix:/path; may be repeated."),
    ] = None,
    listen: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Where callers connect.")] = None,
    runtime: Annotated[
        Path | None, typer.Option(help="The folder of the sockets. By default one below XDG_RUNTIME_DIR.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Envoy's threads.")] = None,
    access_log: Annotated[bool, typer.Option(help="One JSON line a call on standard output, no payloads.")] = False,
) -> None:
    """Run the gateway in front of services that are already there, until Ctrl-C.

    \b
    [bold]Example[/bold]
      ortmesh gateway --listen 0.0.0.0:8080 --backend nlp=10.0.0.5:9001 --backend vision=10.0.0.6:9001
    """
    given: dict[str, Any] = {"address": listen, "backends": backend, "runtime": runtime, "workers": workers}
    chosen = settings(lambda: GatewaySettings(**{name: value for name, value in given.items() if value is not None}))
    if not chosen.backends:
        fail("there is no service to call: name each with --backend FAMILY=ADDRESS")
    options = ["--workers", str(chosen.workers), *(["--access-log"] if access_log or chosen.access_log else [])]
    try:
        with runtime_folder(chosen.runtime if "runtime" in chosen.model_fields_set else None) as folder:
            plan = make_gateway_plan(
                _claimed(chosen.address),
                chosen.backends,
                folder=folder,
                metrics_port=settings(TelemetrySettings).metrics_port,
                options=options,
            )
            asyncio.run(Mesh(plan).run(None))
    except (BadPlan, InUse, NotStarted, OSError) as error:
        fail(str(error))


def _claimed(address: str) -> str:
    """The address with a free port in the place of 0. InUse when nothing can listen there."""
    if address.startswith("unix:"):
        return address
    host, _, port = address.rpartition(":")
    return f"{host}:{claim_port(host, int(port), '--listen')}"
