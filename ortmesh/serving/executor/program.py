"""The program executor: a loop over several sessions for one batch, each item ended when done. Stage: executor."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, Self

from ortmesh.serving.cards import Card
from ortmesh.serving.executor.loop import judged, one_by_one, serve
from ortmesh.serving.executor.sessions import Sessions
from ortmesh.serving.signature import Signature
from ortmesh.serving.types import Item, Meter, Pile, Tensors


class Program(Protocol):
    """What a model of several graphs does with a batch of items."""

    @classmethod
    def load(cls, card: Card, folder: Path, sessions: Sessions) -> Self:
        """Opens the sessions. Any exception means that the model FAILED, with its text as the reason."""

    @property
    def signature(self) -> Signature:
        """What an item's tensors are, and what it gives."""

    @property
    def provider(self) -> str:
        """The execution provider of its sessions."""

    def samples(self) -> list[Tensors]:
        """Items for warm-up: run alone and together, their results must agree. Cheap ones."""

    def run(self, items: Sequence[Item]) -> None:
        """Computes the items and ends each alone, as soon as it is done; looks at `item.cancelled` between steps.

        An exception means that the batch failed: items that have not ended are run again one by one.
        """


class ProgramExecutor:
    """Runs one program. `serve` belongs in a thread of its own."""

    def __init__(self, program: Program, *, limit: int, meter: Meter) -> None:
        self._program = program
        self._limit = limit
        self._meter = meter

    def serve(self, pile: Pile) -> None:
        """Runs batches until the pile closes; ExecutorBroken when the device failed."""
        serve(pile, self.run, self._limit)

    def run(self, items: Sequence[Item]) -> None:
        """Runs items together and, when that fails, those that have not ended one by one."""
        started = time.perf_counter()
        try:
            self._program.run(items)
        except Exception as error:
            if len(items) == 1 and not items[0].done:
                items[0].fail(judged(error, on_device=self._program.provider != "CPUExecutionProvider"))
            else:
                one_by_one(items, self.run, error)
            return
        self._meter.batch(sum(item.rows for item in items), 0.0, time.perf_counter() - started)
