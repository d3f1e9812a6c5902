"""The program executor: batches that take turns, so that nobody waits for what only others need."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Self

import numpy as np
import pytest

from ortmesh.errors import ExecutorFailed
from ortmesh.serving.batcher import Pile
from ortmesh.serving.cards import Card, Runtime
from ortmesh.serving.executor import program as module
from ortmesh.serving.executor.failures import ExecutorBroken
from ortmesh.serving.executor.program import MOST_BEGUN, ProgramExecutor
from ortmesh.serving.executor.sessions import Sessions
from ortmesh.serving.signature import Signature
from ortmesh.serving.types import Item, NoMeter, Tensors
from ortmesh.serving.warmup import Capture


class Turns:
    """A program whose items say how many turns they take; it writes down who has had one."""

    signature, provider = Signature({}, {}), "CPUExecutionProvider"

    def __init__(self, then: Callable[[str], None] = lambda name: None) -> None:
        self.had: list[str] = []
        self.begun = 0
        self.most_begun = 0
        self._then = then

    @classmethod
    def load(cls, card: Card, folder: Path, sessions: Sessions) -> Self:
        """Nothing to open."""
        return cls()

    def samples(self) -> list[Tensors]:
        """None."""
        return []

    def run(self, items: Sequence[Item]) -> Generator[None, None, None]:
        """One item in each batch here."""
        (item,) = items
        self.begun += 1
        self.most_begun = max(self.most_begun, self.begun)
        try:
            for turn in range(int(item.tensors["turns"][0])):
                if turn:
                    yield
                self.had.append(item.caller)
                self._then(item.caller)
            item.finish({})
        finally:
            self.begun -= 1


def ask(name: str, turns: int) -> Item:
    answer = Capture()
    return Item({"turns": np.array([turns])}, answer=answer, owner=answer, deadline=math.inf, caller=name)


def answer(of: Item) -> Capture:
    assert isinstance(of.answer, Capture)
    return of.answer


def executor(program: Turns) -> ProgramExecutor:
    return ProgramExecutor(program, Sessions(Runtime(), threads=1), limit=1, meter=NoMeter())


def serve(program: Turns, pile: Pile) -> list[str]:
    executor(program).serve(pile)
    return program.had


def test_who_comes_has_a_turn_before_what_is_left_of_others() -> None:
    pile = Pile()

    def then(name: str) -> None:
        if program.had == ["long"]:
            pile.submit(ask("short", 1))
            pile.close()

    program = Turns(then)
    pile.submit(ask("long", 4))
    assert serve(program, pile) == ["long", "short", "long", "long", "long"]


def test_what_is_left_of_others_has_a_turn_whoever_comes() -> None:
    """There is always somebody new: every second turn is theirs, and no more."""
    pile = Pile()

    def then(name: str) -> None:
        if len(program.had) < 12:
            pile.submit(ask("short", 1))
        elif len(program.had) == 12:
            pile.close()

    program = Turns(then)
    pile.submit(ask("long", 5))
    had = serve(program, pile)
    assert had.count("long") == 5
    places = [place for place, name in enumerate(had) if name == "long"]
    assert all(later - earlier == 2 for earlier, later in pairwise(places))


def test_no_more_batches_are_begun_than_there_is_memory_for() -> None:
    pile, program = Pile(), Turns()
    asked = [ask(str(number), 3) for number in range(3 * MOST_BEGUN)]
    pile.submit_many(asked)
    pile.close()
    assert sorted(serve(program, pile)) == sorted(item.caller for item in asked for _ in range(3))
    assert program.most_begun == MOST_BEGUN
    assert all(answer(item).outputs is not None for item in asked)


def test_a_batch_that_fails_in_a_later_turn_fails_alone() -> None:
    def then(name: str) -> None:
        if name == "wrong" and program.had.count(name) == 2:
            raise ValueError("a bug")

    pile, program = Pile(), Turns(then)
    wrong, right = ask("wrong", 3), ask("right", 6)
    pile.submit_many([right, wrong])
    pile.close()
    had = serve(program, pile)
    assert had.count("right") == 6
    assert isinstance(answer(wrong).error, ExecutorFailed)
    assert answer(right).outputs is not None


def test_all_that_are_begun_end_when_the_executor_can_not_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(module.Judge):
        """A device that is lost."""

        def failed(self, error: Exception, prove: Callable[[], BaseException | None]) -> ExecutorFailed:
            raise ExecutorBroken("the device is lost")

    def then(name: str) -> None:
        if name == "wrong":
            raise RuntimeError("CUDA failure")

    monkeypatch.setattr(module, "Judge", Broken)
    pile, program = Pile(), Turns(then)
    asked = [ask("right", 6), ask("wrong", 3)]
    pile.submit_many(asked)
    with pytest.raises(ExecutorBroken):
        serve(program, pile)
    assert all(isinstance(answer(item).error, ExecutorFailed) for item in asked)
    assert program.begun == 0, "what they held is free"


def test_items_that_a_program_forgets_fail() -> None:
    """A bug of a program: its caller must not wait for ever."""
    pile, one = Pile(), ask("forgotten", 1)

    class Forgets(Turns):
        def run(self, items: Sequence[Item]) -> Generator[None, None, None]:
            """Ends nothing."""
            yield

    pile.submit(one)
    pile.close()
    executor(Forgets()).serve(pile)
    assert isinstance(answer(one).error, ExecutorFailed)
