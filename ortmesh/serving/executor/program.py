"""The program executor: a loop over several sessions for one batch, each item ended when done. Stage: executor."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Protocol, Self

from ortmesh.serving.cards import Card
from ortmesh.serving.executor.failures import failure_of
from ortmesh.serving.executor.idle import Idle
from ortmesh.serving.executor.judge import Judge
from ortmesh.serving.executor.loop import fail_unended, is_wanted, still_wanted
from ortmesh.serving.executor.sessions import Sessions
from ortmesh.serving.executor.turn import Turn
from ortmesh.serving.resident import Resident
from ortmesh.serving.signature import Signature
from ortmesh.serving.types import Item, Meter, Pile, Tensors
from ortmesh.serving.warmup import Capture

OVER = object()
MOST_BEGUN = 4
"""Batches that are begun at once: each holds memory, and no more are taken until one has ended."""


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

    def run(self, items: Sequence[Item]) -> Generator[None, None, None]:
        """Computes the items and ends each alone, as soon as it is done; looks at `item.cancelled` between steps.

        It yields where others may have a turn: before what only some items need, and what may take seconds. What it
        holds then is held beside up to `MOST_BEGUN` such batches.

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
        """Runs batches until the pile closes and all have ended; ExecutorBroken when it can't go on."""
        idle, begun = Idle(self._holder), _Begun()
        wait, open_ = idle.begin(), True
        try:
            while open_ or begun:
                if open_ and begun.has_room:
                    open_ = self._take(pile, begun, 0.0 if begun else wait)
                if begun:
                    idle.runs()
                    nbytes = self._have_turn(begun)
                    wait = idle.ran(nbytes, time.monotonic())
                elif open_:
                    wait = idle.do()
        finally:
            begun.end()
        idle.end()

    def _take(self, pile: Pile, begun: _Begun, wait: float | None) -> bool:
        """Begins what has come; False once the pile is closed."""
        items = pile.take(self._limit, wait)
        if items:
            begun.come(self._begin(items))
        return items is not None

    def _begin(self, items: Sequence[Item]) -> _Batch:
        return _Batch(items, self._program.run(items))

    def _have_turn(self, begun: _Begun) -> int:
        """One turn of the batch whose turn it is; the bytes of its inputs."""
        batch, following = begun.next(), list[_Batch]()
        self._turn.begin(batch.items)
        try:
            following = self._advance(batch)
        finally:
            self._turn.end()
            if following:
                begun.leave(*following)
            else:
                batch.end()
        return batch.nbytes

    def interrupt(self) -> None:
        """Ends what it computes, and whatever it would compute later."""
        self._turn.interrupt()

    def interrupt_unwanted(self) -> float:
        """Ends what it computes when nobody waits for it; for how many seconds it has not heeded that, else 0."""
        return self._turn.interrupt_unwanted()

    def run(self, items: Sequence[Item]) -> None:
        """Runs items together and, when that fails, those that have not ended one by one."""
        begun = [self._begin(items)]
        while begun:
            begun += self._advance(begun.pop(0))

    def _advance(self, batch: _Batch) -> list[_Batch]:
        """One turn; the batches that have turns after it: itself, or each of its items alone when it has failed."""
        try:
            if batch.have_turn():
                return [batch]
        except Exception as error:
            if len(batch.items) > 1 or batch.items[0].done:
                return [self._begin([item]) for item in still_wanted(batch.items, error)]
            if is_wanted(batch.items[0]):
                batch.items[0].fail(self._judge.failed(error, self._prove))
            return []
        self._judge.succeeded()
        self._meter.batch(sum(item.rows for item in batch.items), 0.0, batch.seconds)
        return []

    def _prove(self) -> BaseException | None:
        """What goes wrong with the sample that it has computed before; None when nothing does, or there is none."""
        if self._proof is None:
            return None
        sample = Capture()
        try:
            for _ in self._program.run([Item(self._proof, answer=sample, owner=sample, deadline=math.inf)]):
                pass
        except Exception as error:
            return failure_of(error, on_device=False)
        return sample.error


class _Batch:
    """Items that were taken together, and how far the program has come with them."""

    def __init__(self, items: Sequence[Item], turns: Generator[None, None, None]) -> None:
        self.items = items
        self.nbytes = sum(item.nbytes for item in items)
        self.seconds = 0.0
        """What its turns took."""
        self._turns = turns

    def have_turn(self) -> bool:
        """Computes until others may have a turn; False when all is done."""
        started = time.perf_counter()
        goes_on = next(self._turns, OVER) is not OVER
        self.seconds += time.perf_counter() - started
        return goes_on

    def end(self) -> None:
        """Nothing more is computed of it: whatever has not ended fails, and what it held is free."""
        self._turns.close()
        fail_unended(self.items)


class _Begun:
    """Batches that are begun: the one that has just come, and what is left of others.

    The new one has its first turn before them, but every second turn is theirs, however much comes.
    """

    def __init__(self) -> None:
        self._new: _Batch | None = None
        self._left: deque[_Batch] = deque()
        self._overtook = False

    def __bool__(self) -> bool:
        """True while any has turns to come."""
        return self._new is not None or bool(self._left)

    @property
    def has_room(self) -> bool:
        """True while another may come."""
        return self._new is None and len(self._left) < MOST_BEGUN

    def come(self, batch: _Batch) -> None:
        """A new one."""
        self._new = batch

    def next(self) -> _Batch:
        """Takes out the one whose turn it is."""
        if self._new is not None and not (self._overtook and self._left):
            batch, self._new, self._overtook = self._new, None, bool(self._left)
            return batch
        self._overtook = False
        return self._left.popleft()

    def leave(self, *batches: _Batch) -> None:
        """There is more to be done of them, after the others' turns."""
        self._left.extend(batches)

    def end(self) -> None:
        """None has a turn any more."""
        for batch in (*self._left, *([] if self._new is None else [self._new])):
            batch.end()
