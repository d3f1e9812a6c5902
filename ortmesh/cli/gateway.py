"""`ortmesh gateway`: the gateway alone, before services that run elsewhere. Stage: command line."""

from __future__ import annotations

from typing import Annotated

import typer

from ortmesh.cli.plan import module
from ortmesh.cli.serve import become


def gateway(
    backend: Annotated[
        list[str] | None,
        typer.Option(metavar="FAMILY=ADDRESS", help="A service, HOST:PORT or unix:/path; may be repeated."),
    ] = None,
    listen: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Where callers connect.")] = None,
    workers: Annotated[int | None, typer.Option(help="Envoy's threads.")] = None,
    access_log: Annotated[bool, typer.Option(help="One JSON line a call on standard output, no payloads.")] = False,
) -> None:
    """Run the gateway in front of services that are already there, until Ctrl-C.

    \b
    [bold]Example[/bold]
      ortmesh gateway --listen 0.0.0.0:8080 --backend nlp=10.0.0.5:9001 --backend vision=10.0.0.6:9001
    """
    given = {"--listen": listen, "--workers": workers}
    arguments = [word for name, value in given.items() if value is not None for word in (name, str(value))]
    arguments += [word for each in backend or [] for word in ("--backend", each)]
    become(module("ortmesh_gateway", *arguments, *(["--access-log"] if access_log else [])))
