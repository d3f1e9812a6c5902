"""`ortmesh up`: the whole mesh on this machine, in the foreground. Stage: command line."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from ortmesh.cli.console import fail
from ortmesh.cli.failures import settings
from ortmesh.cli.known import say_problems
from ortmesh.cli.mesh import Mesh, NotStarted
from ortmesh.cli.plan import MAX_PORT, BadPlan, Task, make_plan, read_families, read_replicas
from ortmesh.cli.runtime import InUse, claim_port, runtime_folder
from ortmesh.config import StoreSettings, TelemetrySettings


def up(
    port: Annotated[int, typer.Option(min=0, max=MAX_PORT, help="Where callers connect; 0 picks a free port.")] = 8080,
    host: Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 for other machines too.")] = "127.0.0.1",
    families: Annotated[
        list[str] | None, typer.Option(help="Serve these only, e.g. vision,nlp. By default all that have models.")
    ] = None,
    replicas: Annotated[
        list[str] | None, typer.Option(metavar="FAMILY=N", help="Processes of a family; may be repeated.")
    ] = None,
    models: Annotated[
        Path | None, typer.Option(help="The store's folder. By default ORTMESH_MODELS, else the user's cache.")
    ] = None,
    runtime: Annotated[
        Path | None, typer.Option(help="The folder of the sockets. By default one below XDG_RUNTIME_DIR.")
    ] = None,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            min=0, max=MAX_PORT, help="Prometheus endpoints: this port for the first process, the next for the next."
        ),
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds until everything must be ready.")] = 300.0,
) -> None:
    """Serve all installed models on this machine, until Ctrl-C.

    Starts a process for each family and the gateway before them. A process that dies is started again.

    \b
    [bold]Examples[/bold]
      ortmesh up
      ortmesh up --port 9000 --families nlp
      ortmesh up --replicas vision=2 --replicas nlp=3
    """
    store = models or settings(StoreSettings).models
    if metrics_port is None:
        metrics_port = settings(TelemetrySettings).metrics_port
    try:
        tasks = _installed(store)
        counts = read_replicas(read_families(families or [], [family for family, _ in tasks], store), replicas or [])
        with runtime_folder(runtime) as folder:
            port = claim_port(host, port)
            plan = make_plan(counts, tasks, host=host, port=port, folder=folder, store=store, metrics_port=metrics_port)
            if metrics_port:
                _claim_metrics(metrics_port, len(plan.services) + 1)  # the gateway's is the last
            asyncio.run(Mesh(plan).run(timeout))
    except (BadPlan, InUse, NotStarted, OSError) as error:
        fail(str(error))


def _claim_metrics(first: int, count: int) -> None:
    host = settings(TelemetrySettings).metrics_host
    for port in range(first, first + count):
        claim_port(host, port, "--metrics-port")


def _installed(store: Path) -> set[Task]:
    """What the usable models in the store are for; those that are not usable are said."""
    from ortmesh.serving.store import Store

    opened = Store(store)
    found: set[Task] = {(card.family, task) for card, _ in opened.cards() for task in card.tasks or [""]}
    say_problems(opened)
    return found
