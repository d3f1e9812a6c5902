"""The default models: pulled into the store with progress, or found there. Stage: models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from demo.failure import DemoFailed
from demo.steps import Steps
from ortmesh import catalogue
from ortmesh.cli.steps import showing_steps
from ortmesh.serving.cards import Card
from ortmesh.serving.faults import IndexUnreachable, StoreError
from ortmesh.serving.fetch import pull
from ortmesh.serving.store import Store

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Had:
    """A model that lies in the store."""

    card: Card
    folder: Path
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

    def labels(self, name: str) -> list[str]:
        """What a model's classes are called; KeyError when the model is not there."""
        had = {each.card.name: each for each in self.had}[name]
        return (had.folder / (had.card.labels or "")).read_text(encoding="utf-8").splitlines()

    def serve(self, family: str, task: str) -> bool:
        """True when the default model of a task is there, with the models that it works with."""
        cards = {each.card.name: each.card for each in self.had}
        for card in cards.values():
            if card.family == family and task in card.default_for:
                named = [each.name for each in catalogue.cards() if each.name in card.preprocessing.values()]
                return all(name in cards for name in named)
        return False


def default_cards() -> list[Card]:
    """The models that the mesh answers with when a request names none, and their partners."""
    return [card for card in catalogue.cards() if not card.optional]


def pull_all(cards: Sequence[Card], store: Store, steps: Steps) -> Models:
    """Brings every model into the store. DemoFailed when none could be had; what is missing is said."""
    had: list[Had] = []
    missing: dict[str, str] = {}
    for card in cards:
        new = not store.has(card.name, card.version)
        try:
            with showing_steps(card.name) as progress:
                folder = pull(card, store, progress)
        except IndexUnreachable as error:
            if not had:
                raise DemoFailed(str(error)) from None
            missing[card.name] = str(error)
            steps.warn(f"{card.name} can't be had: {error}")
        except StoreError as error:
            missing[card.name] = str(error)
            steps.warn(f"{card.name} can't be had: {error}")
        else:
            had.append(Had(card, folder, _size(folder), new))
    if not had:
        raise DemoFailed(f"no model could be had; the first: {next(iter(missing.values()), 'the catalogue is empty')}")
    return Models(tuple(had), missing)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
