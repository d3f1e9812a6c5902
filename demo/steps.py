"""Steps: what the demo is doing, said before it is done, and how long it took. Stage: terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from rich.console import Console
from rich.markup import escape


class Steps:
    """Tells of one step after the other on a console."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._began = time.monotonic()

    @contextmanager
    def step(self, what: str, *, spins: bool = True) -> Iterator[None]:
        """A step that takes a moment: named while it runs, ticked with its time after it, crossed if it fails.

        `spins` is False for a step that shows its progress itself.
        """
        began = time.monotonic()
        spinner = self.console.status(f"{escape(what)} …") if spins else nullcontext()
        if not spins or not self.console.is_terminal:
            self._say(f"[dim]…[/] {escape(what)}")
        try:
            with spinner:
                yield
        except BaseException:
            self._tell("[red]✗[/]", what, began)
            raise
        self._tell("[green]✓[/]", what, began)

    def note(self, text: str) -> None:
        """A line of its own."""
        self._say(f"  [dim]{escape(text)}[/]")

    def warn(self, text: str) -> None:
        """A line that must not be missed."""
        self._say(f"[yellow]![/] {escape(text)}")

    def elapsed(self) -> float:
        """Seconds since the first step."""
        return time.monotonic() - self._began

    def _tell(self, mark: str, what: str, began: float) -> None:
        seconds = time.monotonic() - began
        self._say(f"{mark} {escape(what)} [dim]({seconds:.1f} s)[/]")

    def _say(self, markup: str) -> None:
        self.console.print(markup, highlight=False, soft_wrap=True)
