"""The program executor: a loop over several sessions for one batch, each item ended when done. Stage: executor."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, Self

from ortmesh.errors import ExecutorFailed
from ortmesh.serving.cards import Card
from ortmesh.serving.executor.failures import failure_of, readable
from ortmesh.serving.executor.sessions import Sessions
from ortmesh.serving.signature import Signature
from ortmesh.serving.types import Item, Meter, Pile, Tensors

log = logging.getLogger(__name__)


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
        """Runs batches until the pile closes. ExecutorBroken when the device failed; then its items have ended too."""
        while (items := pile.take(self._limit)) is not None:
            if not items:
                continue
            try:
                self.run(items)
            finally:
                for item in items:
                    if not item.done:
                        item.fail(ExecutorFailed("the model's executor broke while it computed this request"))

    def run(self, items: Sequence[Item]) -> None:
        """Runs items together and, when that fails, those that have not ended one by one."""
        started = time.perf_counter()
        try:
            self._program.run(items)
        except Exception as error:
            left = [item for item in items if not item.done]
            if len(items) == 1 and left:
                left[0].fail(self._judge(error))
                return
            log.warning("a batch of %d failed and %d are run one by one: %s", len(items), len(left), readable(error))
            for item in left:
                self.run([item])
            return
        self._meter.batch(sum(item.rows for item in items), 0.0, time.perf_counter() - started)

    def _judge(self, error: Exception) -> Exception:
        failure = failure_of(error)
        if isinstance(failure, ExecutorFailed):
            log.error("an item failed", exc_info=error)
        return failure
