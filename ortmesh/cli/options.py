"""Options that several subcommands share. Stage: command line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ortmesh.client import DEFAULT_ADDRESS, DEFAULT_TIMEOUT_SECONDS

ADDRESS = DEFAULT_ADDRESS
TIMEOUT = DEFAULT_TIMEOUT_SECONDS

Address = Annotated[str, typer.Option(envvar="ORTMESH_ADDRESS", help="The mesh, HOST:PORT or unix:/path.")]
Json = Annotated[bool, typer.Option("--json", help="Print the answer as JSON, for machines.")]
Model = Annotated[str, typer.Option(help="NAME or NAME@VERSION. By default the task's.", show_default=False)]
Timeout = Annotated[float, typer.Option(help="Seconds until the answer must be there.")]
InputFile = Annotated[
    Path, typer.Argument(exists=True, dir_okay=False, allow_dash=True, help="A file, or - for stdin.")
]
InputFiles = Annotated[
    list[Path], typer.Argument(exists=True, dir_okay=False, allow_dash=True, help="Files, or - for stdin.")
]


def read(file: Path) -> bytes:
    """The bytes of a file or, for `-`, of standard input."""
    return sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
