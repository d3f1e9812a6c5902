"""The session executor: take, stack, one run, split, finish. Stage: executor."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from functools import partial

from ortmesh.serving.executor.binding import Runner
from ortmesh.serving.executor.buckets import Buckets
from ortmesh.serving.executor.failures import failure_of
from ortmesh.serving.executor.idle import Idle
from ortmesh.serving.executor.interruptible import InterruptibleSession
from ortmesh.serving.executor.judge import Judge
from ortmesh.serving.executor.loop import Computed, finish, is_wanted, one_by_one, serve
from ortmesh.serving.executor.measure import Measuring
from ortmesh.serving.executor.stack import NotByRows, split, stack, wanted
from ortmesh.serving.executor.study import Study
from ortmesh.serving.executor.turn import Turn
from ortmesh.serving.resident import Resident
from ortmesh.serving.signature import Signature
from ortmesh.serving.types import Alike, CostBook, Item, Meter, Pile, Tensors


class SessionExecutor:
    """Runs one session. `serve` belongs in a thread of its own."""

    def __init__(
        self,
        session: InterruptibleSession,
        signature: Signature,
        *,
        limit: int,
        meter: Meter,
        resident: Resident | None = None,
        proof: Tensors | None = None,
        costs: CostBook | None = None,
        buckets: Buckets | None = None,
    ) -> None:
        """`buckets` are the shapes of which a GPU may record runs; `costs` learn from every run; `proof` is a sample
        that the session has computed before."""
        self._session = session
        self._signature = signature
        self._limit = limit
        self._meter = meter
        self._runner = Runner(session, signature, buckets)
        self._proof = proof
        on_device = session.get_providers()[0] != "CPUExecutionProvider"
        self._judge = Judge(on_device=on_device)
        self._turn = Turn(session)
        self._holder = (resident or Resident()).holder(self._runner.shrink, session.stream)
        self._costs = costs
        self._usual: tuple[str, ...] = ()
        """The outputs that the last items wanted, all without any: what is measured reads no others."""
        self.study: Study | None = None
        """What it finds out while nothing waits."""
        self.on_alone: Callable[[str], None] = lambda reason: None
        """Told, with the reason, when a batch showed that items must run one at a time."""

    def serve(self, pile: Pile) -> None:
        """Runs batches until the pile closes; ExecutorBroken when it can't go on."""
        serve(pile, self.compute, lambda: self._limit, self._turn, Idle(self._holder, self.study), self._passed)

    @property
    def note(self) -> str:
        """What an operator should know of how it runs."""
        return self._runner.note

    @property
    def provable(self) -> bool:
        """True when there is a sample that it has computed."""
        return self._proof is not None

    def measure(self, sizes: Sequence[int]) -> Measuring:
        """Begins to find out what batches of so large items cost. ValueError when there is no sample to do it with."""
        if self._proof is None:
            raise ValueError("no sample satisfies the model")
        return Measuring(self._run_as_usual, self._signature, self._proof, self._limit, sizes)

    def interrupt(self) -> None:
        """Ends what it computes, and whatever it would compute later."""
        self._turn.interrupt()

    def interrupt_unwanted(self) -> float:
        """Ends what it computes when nobody waits for it; for how many seconds it has not heeded that, else 0."""
        return self._turn.interrupt_unwanted()

    def run(self, items: Sequence[Item]) -> None:
        """Runs items as one batch and ends each. A batch that fails is run again one by one: only the culprit fails."""
        finish(self.compute(items))

    def compute(self, items: Sequence[Item]) -> Sequence[Computed]:
        """As `run`, but what was computed as one batch has not ended yet and is returned with its outputs."""
        try:
            pieces = self._compute(items)
        except NotByRows as error:
            self.serve_alone()
            self.on_alone(f"results depended on the rest of the batch ({error})")
            one_by_one(items, self.run, error)
        except Exception as error:
            if len(items) > 1:
                one_by_one(items, self.run, error)
            elif is_wanted(items[0]):
                items[0].fail(self._judge.failed(error, self._prove))
        else:
            self._judge.succeeded()
            self._tell_ends(items)
            return list(zip(items, pieces, strict=True))
        return ()

    def _passed(self, seconds: float) -> None:
        if self._costs is not None:
            self._costs.passed(seconds)

    def _tell_ends(self, items: Sequence[Item]) -> None:
        """What was computed in time, and what too late."""
        if self._costs is not None:
            for item in items:
                late = item.late
                if item.deadline != math.inf and not (late and item.hopeless):
                    self._costs.ended(late=late)

    def serve_alone(self) -> None:
        """From now on one item at a time: warm-up's samples did not show what a caller's did."""
        self._limit = 1
        self._runner.record_no_more()

    def _compute(self, items: Sequence[Item]) -> list[Tensors]:
        started = time.perf_counter()
        names = self._usual = wanted(items, self._signature)
        pad = not isinstance(items[0].group, Alike)
        feeds, padded = stack(items, self._signature, partial(self._runner.places, outputs=names, pad=pad))
        outputs = self._runner.run(feeds, names, pad=pad)
        self._ran(sum(item.rows for item in items), max(item.size for item in items), padded, started)
        return split(outputs, items, self._signature)

    def _ran(self, rows: int, size: int, padded: float, started: float) -> None:
        seconds = time.perf_counter() - started
        self._meter.batch(rows, padded, seconds)
        if self._costs is not None:
            self._costs.learn(rows, size, seconds)

    def _run_as_usual(self, feeds: Tensors) -> Tensors:
        return self._runner.run(feeds, self._usual)

    def _prove(self) -> BaseException | None:
        """What goes wrong with the sample that it has computed before; None when nothing does, or there is none."""
        if self._proof is None:
            return None
        try:
            self._runner.run(self._proof)
        except Exception as error:
            return failure_of(error, on_device=False)
        return None
