"""The steps of a pull as a progress bar, or as plain lines where no terminal is. Stage: command line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from ortmesh.cli.console import out

if TYPE_CHECKING:
    from ortmesh.serving.sources.fetching import Step


@contextmanager
def showing_steps(model: str) -> Iterator[Callable[[Step], None]]:
    """What `pull` tells its steps to."""
    if not out.is_terminal:
        yield _Lines(model).step
        return
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=30), _Amount())
    with Progress(*columns, console=out, transient=True) as progress:
        yield _Bar(model, progress).step


class _Amount(ProgressColumn):
    """Megabytes of how many, how fast and how long still; nothing while no bytes arrive."""

    def render(self, task: Task) -> Text:
        """The column's text."""
        if not task.completed:
            return Text()
        text = f"{task.completed / 1e6:.1f}"
        if task.total:
            text += f" of {task.total / 1e6:.1f}"
        text += " MB"
        if task.speed:
            text += f", {task.speed / 1e6:.1f} MB/s"
        if task.time_remaining:
            text += f", {task.time_remaining:.0f} s to go"
        return Text(text, style="dim")


class _Bar:
    """One bar a model: it fills while bytes arrive and runs to and fro while something is made of them."""

    def __init__(self, model: str, progress: Progress) -> None:
        self._model = model
        self._progress = progress
        self._task = progress.add_task(model, total=None)
        self._now = ("", "")

    def step(self, step: Step) -> None:
        """Shows a step."""
        if (step.doing, step.what) != self._now:
            self._now = (step.doing, step.what)
            self._progress.reset(self._task, description=f"{self._model}: {step.doing}", total=step.total)
        self._progress.update(self._task, completed=step.done, total=step.total)


class _Lines:
    """A line for each step, none for its progress."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._now = ("", "")

    def step(self, step: Step) -> None:
        """Prints a step when it is a new one."""
        if (step.doing, step.what) != self._now:
            self._now = (step.doing, step.what)
            size = f" ({step.total / 1e6:.1f} MB)" if step.total else ""
            out.print(Text(f"{self._model}: {step.doing} {step.what}{size}"), soft_wrap=True)
