"""The executor's loop: nothing that was computed is lost, and nothing that is ready waits for what may come."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import pytest

from ortmesh.errors import ExecutorFailed, Expired
from ortmesh.serving.batcher import ArrivalOrder, Pile
from ortmesh.serving.executor.idle import Idle
from ortmesh.serving.executor.loop import Computed, is_wanted, serve
from ortmesh.serving.executor.turn import Turn
from ortmesh.serving.resident import Resident
from ortmesh.serving.types import Item, Tensors
from ortmesh.serving.warmup import Capture

OUTPUTS: Tensors = {"y": np.zeros(1, np.float32)}


class Nothing:
    """What computes can't be interrupted here."""

    def interrupt(self) -> None:
        """Never called."""

    def resume(self) -> None:
        """Never called."""


def item() -> Item:
    owner = SimpleNamespace(cancelled=False, admitted=False)
    return Item({"x": np.zeros((1, 1), np.float32)}, answer=Capture(), owner=owner, deadline=math.inf)


def answer(of: Item) -> Capture:
    assert isinstance(of.answer, Capture)
    return of.answer


def all_of_them(items: Sequence[Item]) -> list[Computed]:
    return [(each, OUTPUTS) for each in items]


def run(pile: Pile, compute: object = all_of_them, limit: int = 1, idle: Idle | None = None) -> None:
    serve(pile, compute, lambda: limit, Turn(Nothing()), idle or Idle(Resident().holder(lambda: None)))  # type: ignore[arg-type]


def test_what_was_computed_is_answered_also_when_choosing_fails() -> None:
    class Breaks(ArrivalOrder):
        """The second batch can't be chosen."""

        chosen = 0

        def choose(self, waiting: Sequence[Item], limit: int, now: float, *, shared: bool) -> list[int]:
            self.chosen += 1
            if self.chosen == 2:
                raise MemoryError
            return super().choose(waiting, limit, now, shared=shared)

    pile, items = Pile(policy=Breaks()), [item() for _ in range(3)]
    pile.submit_many(items)
    with pytest.raises(MemoryError):
        run(pile)
    assert answer(items[0]).outputs is not None


def test_what_was_computed_is_answered_also_when_memory_can_not_be_given_back() -> None:
    class Breaks(Idle):
        """A device that is lost when it is asked how much it holds."""

        def ran(self, nbytes: int, now: float) -> float:
            raise RuntimeError("CUDA failure")

    pile, one = Pile(), item()
    pile.submit(one)
    with pytest.raises(RuntimeError):
        run(pile, idle=Breaks(Resident().holder(lambda: None)))
    assert answer(one).outputs is not None


def test_what_an_executor_forgot_fails() -> None:
    """A bug of a program: its caller must not wait for ever."""
    pile, one = Pile(), item()
    pile.submit(one)
    pile.close()
    run(pile, compute=lambda items: ())
    assert isinstance(answer(one).error, ExecutorFailed)


def test_nobody_waits_for_what_has_ended() -> None:
    ended, late, waiting = item(), item(), item()
    ended.finish(OUTPUTS)
    late.deadline = time.monotonic() - 1
    assert [is_wanted(each) for each in (ended, late, waiting)] == [False, False, True]
    assert isinstance(answer(late).error, Expired)
    assert answer(ended).error is None


def test_answers_do_not_wait_for_a_fuller_batch() -> None:
    """A card may have an idle executor wait for more; what is computed has no part in that."""
    pile, items = Pile(max_wait_seconds=30.0), [item() for _ in range(3)]
    pile.submit_many(items)
    executor = threading.Thread(target=run, args=(pile,), kwargs={"limit": 3})
    executor.start()
    end = time.monotonic() + 100
    while answer(items[2]).outputs is None:
        assert time.monotonic() < end
        time.sleep(0.005)
    pile.close()
    executor.join()


def test_the_limit_is_asked_for_each_batch() -> None:
    """A run may have shown that items must run one at a time."""
    sizes: list[int] = []

    def compute(items: Sequence[Item]) -> list[Computed]:
        sizes.append(len(items))
        return all_of_them(items)

    pile = Pile()
    pile.submit_many([item() for _ in range(6)])
    pile.close()
    limits = iter([3, 1, 1, 1, 1])
    serve(pile, compute, lambda: next(limits), Turn(Nothing()), Idle(Resident().holder(lambda: None)))
    assert sizes == [3, 1, 1, 1]


def test_what_passes_between_runs_is_told_while_more_waits() -> None:
    """Two batches that follow each other, and one that comes when the executor has waited for it."""
    passed: list[float] = []
    pile, last = Pile(), item()

    def compute(items: Sequence[Item]) -> list[Computed]:
        if len(items) == 1:
            threading.Timer(0.05, come).start()
        return all_of_them(items)

    def come() -> None:
        if answer(last).outputs is None:
            pile.submit(last)
        pile.close()

    pile.submit_many([item() for _ in range(5)])
    serve(pile, compute, lambda: 2, Turn(Nothing()), Idle(Resident().holder(lambda: None)), passed.append)
    assert answer(last).outputs is not None
    assert len(passed) == 2, "between the three that waited together"
    assert min(passed) > 0
