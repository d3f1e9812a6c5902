"""Every subcommand, in one place. Stage: command line."""

from __future__ import annotations

from typing import Annotated

import typer

from ortmesh import __version__
from ortmesh.cli import call, models
from ortmesh.cli.gateway import gateway
from ortmesh.cli.pull import pull
from ortmesh.cli.serve import serve
from ortmesh.cli.up import up

app = typer.Typer(
    name="ortmesh",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"ortmesh {__version__}")
        raise typer.Exit


@app.callback()
def ortmesh(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """AI models as a service, on your own machines.

    \b
    [bold]First steps[/bold]
      ortmesh pull                                    fetch the default models
      ortmesh up                                      serve them on 127.0.0.1:8080
      ortmesh call nlp embed "good day" "good night"  ask, from another terminal
    """


app.command()(up)
app.command()(pull)
app.add_typer(models.app, name="models")
app.add_typer(call.app, name="call")
app.command()(serve)
app.command()(gateway)
