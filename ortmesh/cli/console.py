"""Where the command writes: results to standard output, errors to standard error. Stage: command line."""

from __future__ import annotations

from typing import NoReturn

import typer
from rich.console import Console
from rich.text import Text

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "bright_cyan", "bright_magenta", "bright_green")


def fail(message: str) -> NoReturn:
    """Says what is wrong and ends with exit code 1."""
    err.print(Text.assemble(("error: ", "bold red"), message), soft_wrap=True)
    raise typer.Exit(1)


class PartLines:
    """Lines of several processes in one terminal, each behind its part's name in a colour of its own."""

    def __init__(self, names: list[str]) -> None:
        self._width = max(map(len, names))
        self._colours = {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(names)}

    def show(self, name: str, line: str) -> None:
        """Prints one line of a part."""
        prefix = Text(f"{name:{self._width}} │ ", style=self._colours.get(name, ""))
        out.print(prefix + Text.from_ansi(line), soft_wrap=True)
