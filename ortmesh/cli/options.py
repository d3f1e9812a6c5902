"""Options that several subcommands share. Stage: command line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ortmesh.client import DEFAULT_ADDRESS, DEFAULT_TIMEOUT_SECONDS, check_target

ADDRESS = DEFAULT_ADDRESS
ADDRESS_VARIABLE = "ORTMESH_ADDRESS"
TIMEOUT = DEFAULT_TIMEOUT_SECONDS
STDIN = Path("-")


def _file(value: Path) -> Path:
    """A file that is there, or `-`; Typer's own check takes `-` for a file's name."""
    if value != STDIN and not value.is_file():
        raise typer.BadParameter(f"{value} is no file")
    return value


def _files(values: list[Path]) -> list[Path]:
    return [_file(value) for value in values]


def _address(value: str) -> str:
    try:
        return check_target(value)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def names_a_mesh(context: typer.Context) -> bool:
    """True when the caller said where the mesh is, by `--address` or ORTMESH_ADDRESS."""
    source = context.get_parameter_source("address")
    # By its name: the type is click's own, or that of Typer's copy of it.
    return source is not None and source.name in ("COMMANDLINE", "ENVIRONMENT")


Address = Annotated[
    str, typer.Option(envvar=ADDRESS_VARIABLE, callback=_address, help="The mesh, HOST:PORT or unix:/path.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the answer as JSON, for machines.")]
Model = Annotated[str, typer.Option(help="NAME or NAME@VERSION. By default the task's.", show_default=False)]
Timeout = Annotated[float, typer.Option(help="Seconds until the answer must be there.")]
InputFile = Annotated[Path, typer.Argument(callback=_file, help="A file, or - for standard input.")]
InputFiles = Annotated[list[Path], typer.Argument(callback=_files, help="Files, or - for standard input.")]


def read(file: Path) -> bytes:
    """The bytes of a file or, for `-`, of standard input."""
    return sys.stdin.buffer.read() if file == STDIN else file.read_bytes()
