"""The default models: pulled into the store with progress, or found there. Stage: models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ortmesh import catalogue
from ortmesh.serving.cards import Card
from ortmesh.serving.fetch import pull
from ortmesh.serving.faults import StoreError
from ortmesh.serving.sources.fetching import Step
from ortmesh.serving.store import Store
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from demo.failure import DemoFailed
from demo.steps import Steps


@dataclass(frozen=True, slots=True)
class Had:
    """A model that lies in the store."""

    card: Card
    nbytes: int
    """Bytes of its files."""
    new: bool
    """True when it was fetched just now."""


@dataclass(frozen=True, slots=True)
class Models:
    """What came of the pull."""

    had: tuple[Had, ...]
    missing: dict[str, str] = field(default_factory=dict)
    """Why a default model is not there, by its name."""

    def serve(self, family: str, task: str) -> bool:
        """True when the default model of a task is there, with the models that it works with."""
        cards = {each.card.name: each.card for each in self.had}
        for card in cards.values():
            if card.family == family and task in card.default_for:
                known = {each.name for each in catalogue.cards()}
                partners = {value for value in card.preprocessing.values() if value in known}
                return partners <= cards.keys()
        return False


def default_cards() -> list[Card]:
    """The models that the mesh answers with when a request names none, and their partners."""
    return [card for card in catalogue.cards() if not card.optional]


def pull_all(cards: Sequence[Card], store: Store, steps: Steps) -> Models:
    """Brings every model into the store. DemoFailed when none could be had; what is missing is said."""
    had: list[Had] = []
    missing: dict[str, str] = {}
    columns = (TextColumn("  {task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
    with Progress(*columns, console=steps.console, transient=True) as bars:
        for card in cards:
            new = not store.has(card.name, card.version)
            bar = bars.add_task(card.name, total=None, visible=new)
            try:
                folder = pull(card, store, lambda step, bar=bar, name=card.name: _show(bars, bar, name, step))
            except StoreError as error:
                missing[card.name] = str(error)
                steps.warn(f"{card.name} can't be had: {error}")
            else:
                had.append(Had(card, _size(folder), new))
            finally:
                bars.remove_task(bar)
    if not had:
        raise DemoFailed(f"no model could be had; the first: {next(iter(missing.values()), 'the catalogue is empty')}")
    return Models(tuple(had), missing)


def _show(bars: Progress, bar: TaskID, name: str, step: Step) -> None:
    downloading = step.doing == "downloading"
    bars.update(
        bar,
        description=escape(f"{name}: {step.doing} {step.what if downloading else ''}".rstrip()),
        completed=step.done,
        total=step.total if downloading else None,
    )


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
