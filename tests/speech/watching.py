"""Watching models at work: the batches they run, what is handed to them, and what calls leave behind."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable, Collection
from typing import Any

import pytest

from ortmesh.front.call import Call
from ortmesh.serving import watch
from ortmesh.serving.model import Model
from ortmesh.serving.models import Models
from ortmesh.serving.types import Item, NoMeter
from tests.front.conftest import until


class Batches:
    """The rows of each batch that ran, as `meter` of Models. A batch is told after its answers are."""

    def __init__(self) -> None:
        self._rows: dict[str, list[int]] = defaultdict(list)

    def __call__(self, name: str, version: str) -> _Meter:
        return _Meter(self._rows[name])

    def __len__(self) -> int:
        """How many there were, of all models."""
        return sum(map(len, self._rows.values()))

    def of(self, name: str) -> list[int]:
        """A model's."""
        return self._rows[name]

    def clear(self) -> None:
        """Forgets those that were."""
        for rows in self._rows.values():
            rows.clear()


class _Meter(NoMeter):
    def __init__(self, rows: list[int]) -> None:
        self._rows = rows

    def batch(self, rows: int, padded_share: float, compute_seconds: float) -> None:
        self._rows.append(rows)


def handed_to(model: Model, monkeypatch: pytest.MonkeyPatch, then: Callable[[], object]) -> list[Item]:
    """The items that a model is given from now on; `then` is done behind each."""
    pile = model._pile
    assert pile is not None
    submit, items = pile.submit, list[Item]()

    def submit_and(item: Item) -> None:
        submit(item)
        items.append(item)
        then()

    monkeypatch.setattr(pile, "submit", submit_and)
    return items


async def until_at_rest(models: Models, call: Call, before: Collection[asyncio.Task[Any]]) -> None:
    """Waits until no task of a call is alive that was not `before`, no item waits, and the pool holds nothing."""

    def left() -> list[Any]:
        piles = [model.name for model in models.list() if model._pile is not None and len(model._pile)]
        tasks = [task for task in asyncio.all_tasks() - set(before) if not _follows_the_store(task)]
        return [*piles, *tasks, *([call.pool.bytes] if call.pool.bytes else [])]

    with contextlib.suppress(TimeoutError):
        await until(lambda: not left())
    assert not left(), left()


def _follows_the_store(task: asyncio.Task[Any]) -> bool:
    """True for tasks that come and go whatever is called."""
    code = getattr(task.get_coro(), "cr_code", None)
    return code is not None and code.co_filename == watch.__file__
