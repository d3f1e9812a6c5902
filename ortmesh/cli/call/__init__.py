"""`ortmesh call`: the tasks of the API from the command line. Stage: command line."""

from __future__ import annotations

import typer

from ortmesh.cli.call import nlp, speech, vision

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Call a task of the running mesh: readable for you, --json for machines.",
)
app.add_typer(vision.app, name="vision")
app.add_typer(speech.app, name="speech")
app.add_typer(nlp.app, name="nlp")
