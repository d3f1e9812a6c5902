"""The program executor: a loop over several sessions for one batch, each item ended when done. Stage: executor."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, Self

from ortmesh.serving.cards import Card
from ortmesh.serving.executor.failures import failure_of
from ortmesh.serving.executor.idle import Idle
from ortmesh.serving.executor.judge import Judge
from ortmesh.serving.executor.loop import Computed, is_wanted, one_by_one, serve
from ortmesh.serving.executor.sessions import Sessions
from ortmesh.serving.executor.turn import Turn
from ortmesh.serving.resident import Resident
from ortmesh.serving.signature import Signature
from ortmesh.serving.types import Item, Meter, Pile, Tensors
from ortmesh.serving.warmup import Capture


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
    """Runs one program on its sessions. `serve` belongs in a thread of its own."""

    def __init__(
        self,
        program: Program,
        sessions: Sessions,
        *,
        limit: int,
        meter: Meter,
        resident: Resident | None = None,
        proof: Tensors | None = None,
    ) -> None:
        self._program = program
        self._limit = limit
        self._meter = meter
        self._proof = proof
        on_device = program.provider != "CPUExecutionProvider"
        self._judge = Judge(on_device=on_device)
        self._turn = Turn(sessions)
        self._holder = (resident or Resident()).holder(sessions.shrink, sessions.device)

    def serve(self, pile: Pile) -> None:
        """Runs batches until the pile closes; ExecutorBroken when it can't go on."""
        serve(pile, self._compute, lambda: self._limit, self._turn, Idle(self._holder))

    def interrupt(self) -> None:
        """Ends what it computes, and whatever it would compute later."""
        self._turn.interrupt()

    def interrupt_unwanted(self) -> float:
        """Ends what it computes when nobody waits for it; for how many seconds it has not heeded that, else 0."""
        return self._turn.interrupt_unwanted()

    def run(self, items: Sequence[Item]) -> None:
        """Runs items together and, when that fails, those that have not ended one by one."""
        started = time.perf_counter()
        try:
            self._program.run(items)
        except Exception as error:
            if len(items) > 1 or items[0].done:
                one_by_one(items, self.run, error)
            elif is_wanted(items[0]):
                items[0].fail(self._judge.failed(error, self._prove))
            return
        self._judge.succeeded()
        self._meter.batch(sum(item.rows for item in items), 0.0, time.perf_counter() - started)

    def _compute(self, items: Sequence[Item]) -> Sequence[Computed]:
        """The program has ended each item as soon as it was done."""
        self.run(items)
        return ()

    def _prove(self) -> BaseException | None:
        """What goes wrong with the sample that it has computed before; None when nothing does, or there is none."""
        if self._proof is None:
            return None
        sample = Capture()
        try:
            self._program.run([Item(self._proof, answer=sample, owner=sample, deadline=math.inf)])
        except Exception as error:
            return failure_of(error, on_device=False)
        return sample.error
